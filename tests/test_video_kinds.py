"""Video files from services and cameras: the number, size and colour of frames are correct."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from hunyuan_local.errors import VideoError
from hunyuan_local.video import container_of, probe, read_frames, read_poster
from hunyuan_local.video.ffmpeg import every_frame

pytestmark = pytest.mark.usefixtures("starts_process")

COLOURS = ((200, 40, 90), (30, 160, 60), (40, 70, 210), (235, 235, 235))  # of the quarters, starting at the top left
BT709 = ("-vf", "scale=out_color_matrix=bt709:flags=accurate_rnd", "-colorspace", "bt709")
BT2020 = ("-vf", "scale=out_color_matrix=bt2020:flags=accurate_rnd", "-colorspace", "bt2020nc")
FULL = ("-vf", "scale=out_range=pc:flags=accurate_rnd", "-color_range", "pc")
X265 = ("-c:v", "libx265", "-x265-params", "log-level=none:crf=4")
KINDS: dict[str, tuple[str, ...]] = {
    "h264-10.mp4": ("-pix_fmt", "yuv420p10le"),
    "h264-422-10.mp4": ("-pix_fmt", "yuv422p10le"),
    "h264-444.mp4": ("-pix_fmt", "yuv444p"),
    "h264-rgb.mp4": ("-c:v", "libx264rgb"),
    "h264-full.mp4": (*FULL, "-pix_fmt", "yuv420p"),
    "h264-full-10.mp4": (*FULL, "-pix_fmt", "yuv420p10le"),
    "h264-709.mp4": (*BT709, "-pix_fmt", "yuv420p"),
    "h264-2020-10.mp4": (*BT2020, "-pix_fmt", "yuv420p10le"),
    "h264-pieces.mp4": ("-pix_fmt", "yuv420p", "-movflags", "frag_keyframe+empty_moov"),
    "hevc-10.mp4": (*X265, "-pix_fmt", "yuv420p10le"),
    "hevc-444-12.mp4": (*X265, "-pix_fmt", "yuv444p12le"),
    "av1-10.mp4": ("-c:v", "libaom-av1", "-cpu-used", "8", "-crf", "8", "-pix_fmt", "yuv420p10le"),
    "mjpeg-full.mp4": ("-c:v", "mjpeg", "-q:v", "1", "-pix_fmt", "yuvj420p"),
    "prores.mov": ("-c:v", "prores_ks", "-profile:v", "4444", "-pix_fmt", "yuv444p10le"),
    "vp9.webm": ("-c:v", "libvpx-vp9", "-crf", "4", "-b:v", "0", "-pix_fmt", "yuv420p"),
    "vp9-alpha.webm": ("-c:v", "libvpx-vp9", "-crf", "4", "-b:v", "0", "-pix_fmt", "yuva420p"),
    "mjpeg.avi": ("-c:v", "mjpeg", "-q:v", "1", "-pix_fmt", "yuvj420p"),
    "h264.ts": ("-pix_fmt", "yuv420p"),
}


def quarters(num_frames: int = 6, width: int = 64, height: int = 48) -> np.ndarray:
    frame = np.empty((height, width, 3), np.uint8)
    for place, colour in enumerate(COLOURS):
        rows = slice(None, height // 2) if place < 2 else slice(height // 2, None)
        columns = slice(width // 2, None) if place % 2 else slice(None, width // 2)
        frame[rows, columns] = colour
    return np.stack([frame] * num_frames)


def ffmpeg(*arguments: str, stdin: bytes = b"") -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *arguments]
    subprocess.run(command, input=stdin, check=True)


def encode(path: Path, frames: np.ndarray, *options: str) -> Path:
    """A file of RGB or RGBA frames at 8 per second; H.264 unless the options say otherwise."""
    pixels = {3: "rgb24", 4: "rgba"}[frames.shape[3]]
    raw = ["-f", "rawvideo", "-pix_fmt", pixels, "-s", f"{frames.shape[2]}x{frames.shape[1]}", "-r", "8", "-i", "-"]
    ffmpeg(*raw, "-c:v", "libx264", "-crf", "4", *options, str(path), stdin=frames.tobytes())
    return path


def colours_of(frame: np.ndarray) -> np.ndarray:
    """The colours in the centres of the quarters."""
    height, width = frame.shape[:2]
    rows, columns = (height // 4, 3 * height // 4), (width // 4, 3 * width // 4)
    return np.array([frame[y, x] for y in rows for x in columns], int)


def shape(path: Path) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Number of frames, height and width, as probed and as decoded."""
    reported, frames = probe(path), list(read_frames(path))
    assert len({frame.shape for frame in frames}) == 1
    return (reported.num_frames, reported.height, reported.width), (len(frames), *frames[0].shape[:2])


@pytest.mark.parametrize("name", KINDS)
def test_the_frames_of_every_kind_are_those_that_went_in(tmp_path: Path, name: str) -> None:
    path = encode(tmp_path / name, quarters(), *KINDS[name])
    assert shape(path) == ((6, 48, 64), (6, 48, 64))
    for frame in read_frames(path):
        assert frame.dtype == np.uint8
        assert np.abs(colours_of(frame) - COLOURS).max() <= 6


@pytest.mark.parametrize(("width", "height"), [(63, 47), (65, 48), (64, 33)])
@pytest.mark.parametrize("name", ["h264-444.mp4", "av1-10.mp4", "vp9.webm", "mjpeg.avi"])
def test_odd_sizes(tmp_path: Path, width: int, height: int, name: str) -> None:
    path = encode(tmp_path / name, quarters(3, width, height), *KINDS[name])
    assert shape(path) == ((3, height, width), (3, height, width))
    assert np.abs(colours_of(next(read_frames(path))) - COLOURS).max() <= 6


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.mov", ("-c:v", "prores_ks", "-profile:v", "4444", "-pix_fmt", "yuva444p10le")), ("a.mov", ("-c:v", "png"))],
)
def test_what_is_transparent_is_black(tmp_path: Path, name: str, options: Sequence[str]) -> None:
    alpha = np.full((3, 48, 64, 1), 255, np.uint8)
    alpha[:, :, :32] = 0
    path = encode(tmp_path / name, np.concatenate([quarters(3), alpha], axis=3), *options)
    found = colours_of(next(read_frames(path)))
    assert found[[0, 2]].max() == 0 and np.abs(found[[1, 3]] - np.array(COLOURS)[[1, 3]]).max() <= 6


def test_a_variable_frame_rate_repeats_and_drops_nothing(tmp_path: Path) -> None:
    shades = np.arange(20, 220, 5, np.uint8)  # of 40 frames
    frames = np.broadcast_to(shades[:, None, None, None], (40, 48, 64, 3)).copy()
    # The first 20 at 24 per second, the others at 8, with one pause of a second.
    times = "setpts='(if(lt(N,20),N,20+3*(N-20))+if(gt(N,30),24,0))/(24*TB)'"
    rate = ["-vf", f"settb=1/2400,{times}", "-fps_mode", "passthrough"]
    path = encode(tmp_path / "a.mp4", frames, *rate, "-pix_fmt", "yuv420p")
    assert shape(path) == ((40, 48, 64), (40, 48, 64))
    found = [int(frame.mean().round()) for frame in read_frames(path)]
    assert np.abs(np.array(found) - shades).max() <= 2
    reported = probe(path)
    assert reported.fps == pytest.approx(40 / reported.duration_s) and 8 < reported.fps < 24


@pytest.mark.parametrize(("degrees", "order"), [(90, (1, 3, 0, 2)), (180, (3, 2, 1, 0)), (-90, (2, 0, 3, 1))])
def test_frames_are_turned_as_a_player_turns_them_and_so_is_the_size(
    tmp_path: Path, degrees: int, order: Sequence[int]
) -> None:
    plain = encode(tmp_path / "plain.mp4", quarters(), "-pix_fmt", "yuv420p")
    path = tmp_path / "a.mp4"
    ffmpeg("-display_rotation", str(degrees), "-i", str(plain), "-c", "copy", str(path))
    size = (48, 64) if degrees == 180 else (64, 48)
    assert shape(path) == ((6, *size), (6, *size))
    assert np.abs(colours_of(next(read_frames(path))) - np.array(COLOURS)[list(order)]).max() <= 6


@pytest.mark.parametrize("rate", ["1000", "24000/1001"])
def test_rates_of_all_spellings_are_read(tmp_path: Path, rate: str) -> None:
    path = encode(tmp_path / "a.mp4", quarters(), "-vf", f"setpts=N/({rate})/TB", "-r", rate, "-pix_fmt", "yuv420p")
    assert probe(path).fps == pytest.approx(float(eval(rate)), abs=0.01)


def test_a_cover_picture_is_not_the_video(tmp_path: Path) -> None:
    video = encode(tmp_path / "v.mp4", quarters(), "-pix_fmt", "yuv420p")
    cover = encode(tmp_path / "c.png", quarters(1, 32, 32), "-c:v", "png", "-update", "1")
    path = tmp_path / "a.mp4"
    inputs = ["-i", str(cover), "-i", str(video), "-map", "0", "-map", "1"]
    ffmpeg(*inputs, "-c", "copy", "-disposition:v:0", "attached_pic", str(path))
    assert shape(path) == ((6, 48, 64), (6, 48, 64))


@pytest.mark.parametrize("name", ["vp9.webm", "mjpeg.avi", "prores.mov", "h264-10.mp4"])
def test_a_file_cut_short_is_refused_whatever_its_kind(tmp_path: Path, name: str) -> None:
    path = encode(tmp_path / name, quarters(24), *KINDS[name])
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    for read in (container_of, probe, lambda path: list(read_frames(path))):
        with pytest.raises(VideoError, match="truncated"):
            read(path)


@pytest.mark.parametrize("text", ["ffconcat version 1.0\nfile v.mp4\n", "#EXTM3U\n#EXTINF:1,\nv.mp4\n#EXT-X-ENDLIST\n"])
def test_a_list_of_files_is_not_a_video(tmp_path: Path, text: str) -> None:
    encode(tmp_path / "v.mp4", quarters(), "-pix_fmt", "yuv420p")
    (tmp_path / "a.mp4").write_text(text)
    with pytest.raises(VideoError, match=r"a\.mp4: cannot be read as a video"):
        list(read_frames(tmp_path / "a.mp4"))


def test_sound_alone_is_not_a_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    ffmpeg("-f", "lavfi", "-i", "sine=d=0.2", str(path))
    with pytest.raises(VideoError, match="contains no video"):
        probe(path)


@pytest.mark.parametrize(
    ("name", "container"), [("h264-10.mp4", "mp4"), ("prores.mov", "mp4"), ("vp9.webm", "matroska,webm")]
)
def test_the_container_is_named(tmp_path: Path, name: str, container: str) -> None:
    assert container_of(encode(tmp_path / name, quarters(2), *KINDS[name])) == container


@pytest.mark.parametrize("name", ["h264-10.mp4", "vp9.webm", "mjpeg-full.mp4"])
def test_every_kind_has_a_poster(tmp_path: Path, name: str) -> None:
    assert read_poster(encode(tmp_path / name, quarters(), *KINDS[name])).startswith(b"\xff\xd8")


@pytest.mark.parametrize(
    ("version", "option"),
    [
        ("4.4.2-0ubuntu0.22.04.1", "vsync"),
        ("5.1", "fps_mode"),
        ("n9.0.2-17-g2a57", "fps_mode"),
        ("N-113-g1", "fps_mode"),
    ],
)
def test_an_old_ffmpeg_is_called_as_it_knows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, option: str
) -> None:
    exe = tmp_path / "ffmpeg"
    exe.write_text(f"#!/bin/sh\necho ffmpeg version {version} Copyright\n")
    exe.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(exe))
    assert f"-{option}" in every_frame()
