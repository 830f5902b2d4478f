"""Properties of video files, each checked with the real ffmpeg on small frames."""

from __future__ import annotations

import os
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from hunyuan_local.errors import ConfigError, OutputExistsError, VideoError
from hunyuan_local.video import VideoInfo, VideoWriter, check_output_path, probe, read_frames, read_metadata

ROOT = Path(__file__).resolve().parents[1]
runs_ffmpeg = pytest.mark.usefixtures("starts_process")
SMALL = (32, 16)  # width, height


def solid(num_frames: int = 5, size: tuple[int, int] = SMALL, colour: tuple[int, int, int] = (200, 40, 90)):
    return np.full((num_frames, size[1], size[0], 3), colour, np.uint8)


def save(path: Path, frames: np.ndarray, metadata: str | None = None, **options) -> Path:
    options = {"fps": 24, "frame_size": (frames.shape[2], frames.shape[1])} | options
    with VideoWriter(path, **options) as writer:
        writer.write(frames)
        return writer.finish(metadata)


@pytest.fixture(scope="module")
def clip(starts_process, tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("clip") / "clip.mp4", solid(), '{"seed": 7}')


def ffmpeg_says(path: Path) -> str:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", str(path)]
    return subprocess.run(command, capture_output=True, text=True).stderr


# What is written


def test_probe_says_what_was_written(clip):
    assert probe(clip) == VideoInfo(32, 16, 5, 24.0, 5 / 24, "h264", "yuv420p")


@runs_ffmpeg
def test_finish_returns_the_path(tmp_path):
    assert save(tmp_path / "a.mp4", solid()) == tmp_path / "a.mp4"


@runs_ffmpeg
def test_relative_path_with_a_colon(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert probe(save(Path("a:b %03d.mp4"), solid())).num_frames == 5


@runs_ffmpeg
def test_long_unicode_name(tmp_path):
    assert save(tmp_path / f"{'漢' * 80}.mp4", solid()).exists()


@runs_ffmpeg
def test_one_frame(tmp_path):
    info = probe(save(tmp_path / "a.mp4", solid(1)))
    assert (info.num_frames, info.fps) == (1, 24.0)


@runs_ffmpeg
@pytest.mark.parametrize("fps", [1, 24, 240])
def test_fps_is_exact(tmp_path, fps):
    assert probe(save(tmp_path / "a.mp4", solid(3), fps=fps)).fps == fps


@runs_ffmpeg
@pytest.mark.parametrize("size", [(16, 16), (48, 80), (1280, 720)])
def test_size_is_exact(tmp_path, size):
    info = probe(save(tmp_path / "a.mp4", solid(1, size)))
    assert (info.width, info.height) == size


@runs_ffmpeg
def test_frames_of_many_calls_are_all_there(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", frame_size=SMALL, fps=24) as writer:
        for num_frames in (1, 4, 12, 0, 16):
            writer.write(solid(num_frames))
        writer.finish()
    assert probe(tmp_path / "a.mp4").num_frames == 33


@runs_ffmpeg
def test_frames_that_are_a_view_are_written_rightly(tmp_path):
    frames = np.zeros((2, 32, 32, 3), np.uint8)
    frames[:, :, 16:] = 255
    path = save(tmp_path / "a.mp4", frames.transpose(0, 2, 1, 3))
    assert np.abs(next(read_frames(path)).astype(int) - frames[0].transpose(1, 0, 2)).max() <= 8


@runs_ffmpeg
def test_scale_up(tmp_path):
    info = probe(save(tmp_path / "a.mp4", solid(), size=(128, 64)))
    assert (info.width, info.height) == (128, 64)


@runs_ffmpeg
def test_scaling_keeps_the_picture(tmp_path):
    frames = solid(1, (32, 32), (0, 0, 0))
    frames[:, :16] = 255
    frame = next(read_frames(save(tmp_path / "a.mp4", frames, size=(64, 64))))
    assert frame[:24].min() > 240
    assert frame[40:].max() < 15


@runs_ffmpeg
def test_colours_come_back(tmp_path):
    colours = [(0, 0, 0), (255, 255, 255), (128, 128, 128), (255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 40, 90)]
    frames = np.concatenate([solid(1, colour=colour) for colour in colours])
    found = np.stack(list(read_frames(save(tmp_path / "a.mp4", frames))))
    assert np.abs(found.astype(int) - frames).max() <= 3


@runs_ffmpeg
def test_gradient_comes_back(tmp_path):
    ramp = np.linspace(0, 255, 128, dtype=np.uint8)
    frames = np.broadcast_to(ramp[None, None, :, None], (3, 64, 128, 3))
    assert np.abs(np.stack(list(read_frames(save(tmp_path / "a.mp4", frames)))).astype(int) - frames).mean() < 2


@runs_ffmpeg
def test_frames_come_back_in_order(tmp_path):
    levels = list(range(10, 250, 20))
    frames = np.stack([solid(1, colour=(level,) * 3)[0] for level in levels])
    means = [frame.mean() for frame in read_frames(save(tmp_path / "a.mp4", frames))]
    assert np.abs(np.array(means) - levels).max() < 4


def test_colours_are_tagged_bt709(clip):
    assert "yuv420p(tv, bt709, progressive)" in ffmpeg_says(clip)


def test_index_comes_before_the_frames(clip):
    data = clip.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


@runs_ffmpeg
def test_finished_file_has_the_usual_mode(tmp_path):
    (tmp_path / "other").touch()
    assert save(tmp_path / "a.mp4", solid()).stat().st_mode == (tmp_path / "other").stat().st_mode


# Metadata


@runs_ffmpeg
@pytest.mark.parametrize(
    "text",
    [
        '{"prompt": "Käse, 漢字, 😀"}',
        "first\nsecond\n\nfourth\n",
        "a\r\nb\tc",
        "a=b;c#d\\e\\\\n\\",
        "comment=x\n[STREAM]\ntitle=y\n;z",
        "line\u2028Stream #0:0: Video: none\u2029end\x85",
        "\nStream #0:0: Video: vp9, rgb24, 8x8, 99 fps",
        " spaces ",
        "".join(f'"{number}": "value",\n' for number in range(8000)),
        "x" * 100_000,
    ],
    ids=["unicode", "newlines", "returns", "specials", "sections", "separators", "header", "spaces", "lines", "long"],
)
def test_metadata_comes_back(tmp_path, text):
    path = save(tmp_path / "a.mp4", solid(2), text)
    assert read_metadata(path) == text
    assert probe(path) == VideoInfo(32, 16, 2, 24.0, 2 / 24, "h264", "yuv420p")
    assert len(list(read_frames(path))) == 2


def test_metadata_is_the_comment_tag(clip):
    assert re.search(r'comment +: \{"seed": 7\}', ffmpeg_says(clip))


@runs_ffmpeg
def test_no_metadata_is_none(tmp_path):
    assert read_metadata(save(tmp_path / "a.mp4", solid())) is None


@runs_ffmpeg
def test_metadata_with_nul_is_refused(tmp_path):
    with pytest.raises(ValueError, match="NUL"):
        save(tmp_path / "a.mp4", solid(), "a\0b")
    assert os.listdir(tmp_path) == []


# Where files may be written


def test_existing_file_is_refused_and_kept(tmp_path):
    (tmp_path / "a.mp4").write_text("mine")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        VideoWriter(tmp_path / "a.mp4", frame_size=SMALL, fps=24)
    assert (tmp_path / "a.mp4").read_text() == "mine"


@runs_ffmpeg
def test_overwrite_replaces(tmp_path):
    (tmp_path / "a.mp4").write_text("mine")
    assert probe(save(tmp_path / "a.mp4", solid(), overwrite=True)).num_frames == 5


@runs_ffmpeg
def test_overwrite_keeps_the_old_file_until_the_end(tmp_path):
    (tmp_path / "a.mp4").write_text("mine")
    with VideoWriter(tmp_path / "a.mp4", frame_size=SMALL, fps=24, overwrite=True) as writer:
        writer.write(solid())
    assert (tmp_path / "a.mp4").read_text() == "mine"


@runs_ffmpeg
def test_file_that_appears_meanwhile_is_kept(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", frame_size=SMALL, fps=24) as writer:
        writer.write(solid())
        (tmp_path / "a.mp4").write_text("theirs")
        with pytest.raises(OutputExistsError):
            writer.finish()
    assert (tmp_path / "a.mp4").read_text() == "theirs"
    assert os.listdir(tmp_path) == ["a.mp4"]


@runs_ffmpeg
def test_file_system_without_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("links are not supported")

    monkeypatch.setattr(os, "link", refuse)
    assert probe(save(tmp_path / "a.mp4", solid())).num_frames == 5
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_other_suffix_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"must end in \.mp4"):
        check_output_path(tmp_path / "a.avi", overwrite=False)


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="create it"):
        check_output_path(tmp_path / "none" / "a.mp4", overwrite=False)


def test_folder_in_place_of_a_file_is_refused(tmp_path):
    (tmp_path / "a.mp4").mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        check_output_path(tmp_path / "a.mp4", overwrite=True)


def test_folder_without_write_permission_is_refused():
    # A folder of the kernel, in which even root may not write.
    with pytest.raises(ConfigError, match="not writable"):
        check_output_path(Path("/proc/sys/a.mp4"), overwrite=False)


# What is left after a failure


@runs_ffmpeg
def test_only_a_hidden_partial_is_there_while_writing(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", frame_size=SMALL, fps=24) as writer:
        writer.write(solid(200))
        assert all(name.startswith(".") and name.endswith(".partial") for name in os.listdir(tmp_path))


def test_only_the_file_is_there_at_the_end(clip):
    assert os.listdir(clip.parent) == ["clip.mp4"]


@runs_ffmpeg
def test_leaving_without_finish_leaves_nothing(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", frame_size=SMALL, fps=24) as writer:
        writer.write(solid(200))
    assert os.listdir(tmp_path) == []


@runs_ffmpeg
def test_an_exception_passes_and_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), VideoWriter(tmp_path / "a.mp4", frame_size=SMALL, fps=24) as writer:
        writer.write(solid(200))
        raise KeyError
    assert os.listdir(tmp_path) == []


@runs_ffmpeg
def test_abort_twice(tmp_path):
    writer = VideoWriter(tmp_path / "a.mp4", frame_size=SMALL, fps=24)
    writer.write(solid())
    writer.abort()
    writer.abort()
    assert os.listdir(tmp_path) == []


@runs_ffmpeg
def test_abort_after_finish_keeps_the_file(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", frame_size=SMALL, fps=24) as writer:
        writer.write(solid())
        writer.finish()
        writer.abort()
    assert (tmp_path / "a.mp4").exists()


@runs_ffmpeg
def test_no_frames_are_refused_and_leave_nothing(tmp_path):
    with pytest.raises(ValueError, match="no frame"), VideoWriter(tmp_path / "a.mp4", frame_size=SMALL, fps=24) as out:
        out.finish()
    assert os.listdir(tmp_path) == []


@runs_ffmpeg
@pytest.mark.parametrize("verb", ["write", "finish"])
def test_a_closed_writer_is_refused(tmp_path, verb):
    with VideoWriter(tmp_path / "a.mp4", frame_size=SMALL, fps=24) as writer:
        writer.write(solid())
    with pytest.raises(ValueError, match="closed"):
        writer.write(solid()) if verb == "write" else writer.finish()


@runs_ffmpeg
@pytest.mark.parametrize(
    "frames",
    [solid()[0], solid(size=(16, 32)), solid()[..., :1], solid().astype(np.float32), solid().astype(np.int8)],
    ids=["one frame", "size", "channels", "float", "int8"],
)
def test_wrong_frames_are_refused(tmp_path, frames):
    with VideoWriter(tmp_path / "a.mp4", frame_size=SMALL, fps=24) as writer, pytest.raises(ValueError, match="uint8"):
        writer.write(frames)


@runs_ffmpeg
def test_failure_carries_what_ffmpeg_said(tmp_path):
    with pytest.raises(VideoError, match="not divisible by 2"):
        save(tmp_path / "a.mp4", solid(), size=(33, 16))


@runs_ffmpeg
def test_failure_leaves_nothing(tmp_path):
    with pytest.raises(VideoError):
        save(tmp_path / "a.mp4", solid(), size=(33, 16))
    assert os.listdir(tmp_path) == []


@runs_ffmpeg
def test_failure_while_writing_is_a_video_error(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", frame_size=SMALL, size=(33, 16), fps=24) as writer, pytest.raises(VideoError):
        for _ in range(1000):
            writer.write(solid(100))


def test_missing_ffmpeg_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "none"))
    with pytest.raises(VideoError, match="IMAGEIO_FFMPEG_EXE"):
        VideoWriter(tmp_path / "a.mp4", frame_size=SMALL, fps=24)


def run_writer(folder: Path, before: str = "", after: str = "") -> subprocess.Popen:
    """Another process that writes 64x64 noise to a.mp4 and prints when it starts."""
    code = f"""
import resource, sys, time
import numpy as np
from pathlib import Path
from hunyuan_local.video import VideoWriter
{before}
noise = np.random.default_rng(0).integers(0, 256, (100, 64, 64, 3), np.uint8)
with VideoWriter(Path(sys.argv[1]) / "a.mp4", frame_size=(64, 64), fps=24) as writer:
    writer.write(noise)
    print("written", flush=True)
    {after}
    writer.finish()
"""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code, str(folder)], cwd=ROOT, **pipes)


@runs_ffmpeg
def test_a_killed_run_leaves_no_mp4(tmp_path):
    with run_writer(tmp_path, after="time.sleep(60)") as process:
        assert process.stdout.readline() == "written\n"
        process.send_signal(signal.SIGKILL)
    assert [name for name in os.listdir(tmp_path) if name.endswith(".mp4")] == []


@runs_ffmpeg
def test_a_full_disk_is_a_video_error_and_leaves_nothing(tmp_path):
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    with run_writer(tmp_path, before=limit) as process:
        _, messages = process.communicate(timeout=60)
    assert "VideoError" in messages
    assert os.listdir(tmp_path) == []


# What cannot be read


READERS = [probe, read_metadata, lambda path: list(read_frames(path))]
BROKEN = {
    "missing": None,
    "empty": lambda data: b"",
    "text": lambda data: b"ffconcat version 1.0\nfile other.mp4\n",
    "no index": lambda data: data[:32],
    "cut in half": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "zeros": lambda data: bytes(1000),
    "no video": lambda data: struct.pack(">I8s", 12, b"ftypisom") + struct.pack(">I4sI4s", 8, b"moov", 8, b"mdat"),
}


@pytest.mark.parametrize("read", READERS, ids=["probe", "read_metadata", "read_frames"])
@pytest.mark.parametrize("kind", [kind for kind in BROKEN if kind != "no video"])
def test_a_broken_file_is_named(tmp_path, clip, read, kind):
    path = tmp_path / "a.mp4"
    if BROKEN[kind]:
        path.write_bytes(BROKEN[kind](clip.read_bytes()))
    with pytest.raises(VideoError, match=rf"{re.escape(str(path))}.* again"):
        read(path)


@pytest.mark.parametrize("read", [READERS[0], READERS[2]], ids=["probe", "read_frames"])
def test_an_mp4_without_video_is_named(tmp_path, clip, read):
    (tmp_path / "a.mp4").write_bytes(BROKEN["no video"](b""))
    with pytest.raises(VideoError, match=r"a\.mp4"):
        read(tmp_path / "a.mp4")


@pytest.mark.parametrize("read", READERS, ids=["probe", "read_metadata", "read_frames"])
def test_a_folder_cannot_be_read(tmp_path, read):
    with pytest.raises(VideoError, match=re.escape(str(tmp_path))):
        read(tmp_path)


@runs_ffmpeg
def test_reading_may_stop_early(tmp_path):
    frames = read_frames(save(tmp_path / "a.mp4", solid(100)))
    next(frames)
    frames.close()
    assert list(frames) == []


def test_frames_that_are_read_have_the_size_of_the_file(clip):
    assert [(frame.shape, frame.dtype) for frame in read_frames(clip)] == [((16, 32, 3), np.uint8)] * 5


@runs_ffmpeg
def test_importing_needs_no_torch():
    code = "import sys, hunyuan_local.video; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
