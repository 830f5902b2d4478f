"""Video files: frames in, one finished H.264 mp4 out, and back again.

A file appears under its name only when it is complete and checked; until then it is a hidden
``.partial`` beside it. The only module that runs a codec. Knows nothing about models, requests or
what the metadata it carries means.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from .errors import ConfigError, OutputExistsError, VideoError

Size = tuple[int, int]  # width, height
ENCODER = ["-c:v", "libx264", "-crf", "17", "-pix_fmt", "yuv420p", "-f", "mp4"]  # at crf 17 no loss is seen
SCALER = "flags=lanczos+accurate_rnd+full_chroma_int:out_color_matrix=bt709:out_range=tv"
TAGGER = "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
COMMENT_BOXES = ((b"moov", 0), (b"udta", 0), (b"meta", 4), (b"ilst", 0), (b"\xa9cmt", 0), (b"data", 8))
STREAM_LINE = re.compile(
    rb"(?m)^ *Stream #0:\d[^\n]*? Video: (?P<codec>\w+)[^\n]*?, (?P<pixels>\w+)[(,][^\n]*?"
    rb" (?P<width>\d+)x(?P<height>\d+)[ ,][^\n]*? (?P<fps>[\d.]+) fps"
)


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds; ``num_frames`` is counted by decoding."""

    width: int
    height: int
    num_frames: int
    fps: float
    duration_s: float
    codec: str
    pixel_format: str


class VideoWriter:
    """Encodes frames as they come and moves the finished file into place.

    A context manager: leaving it without ``finish`` leaves nothing behind. The encoder scales from
    ``frame_size``, what is handed in, to ``size``, what the file has.

    Raises:
        ConfigError, OutputExistsError: at once, see ``check_output_path``.
        VideoError: the encoder failed; the message ends with ffmpeg's own.
    """

    def __init__(self, path: Path, *, frame_size: Size, fps: int, size: Size | None = None, overwrite: bool = False):
        self.path = path
        check_output_path(path, overwrite)
        self._frame_size, self._size = frame_size, size or frame_size
        self._fps, self._overwrite = fps, overwrite
        self._num_frames, self._closed = 0, False
        self._target = Path(os.path.abspath(self.path))
        stem = f".{self.path.name[:40]}.{os.getpid()}-{secrets.token_hex(4)}"
        self._encoded = self._target.with_name(f"{stem}.encode.partial")
        self._finished = self._target.with_name(f"{stem}.partial")
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 - closed by abort
        self._encoder = self._start_encoder()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    def write(self, frames: np.ndarray) -> None:
        """Encode uint8 frames [n, height, width, 3]; blocks while the encoder is behind."""
        width, height = self._frame_size
        if self._closed:
            raise ValueError(f"the writer of {self.path} is closed")
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (height, width, 3):
            raise ValueError(f"frames must be uint8 [n, {height}, {width}, 3], not {frames.dtype} {[*frames.shape]}")
        try:
            for frame in frames:
                self._encoder.stdin.write(np.ascontiguousarray(frame).data)
                self._num_frames += 1
        except OSError as error:
            self._close_encoder()
            raise VideoError(f"{self.path}: ffmpeg stopped early; no file was kept; try again") from error

    def finish(self, metadata: str | None = None) -> Path:
        """Close the encoder, check the file, give it ``metadata`` and its name."""
        if self._closed or not self._num_frames:
            self.abort()
            raise ValueError(f"the writer of {self.path} is closed or was given no frame")
        try:
            self._close_encoder()
            self._copy(metadata)
            self._check()
            _sync(self._finished)
            self._move_into_place()
        except OSError as error:
            raise VideoError(f"{self.path}: cannot be written: {error}; check the disk and the folder") from error
        finally:
            self.abort()
        return self.path

    def abort(self) -> None:
        """Stop the encoder and delete what is unfinished; does nothing the second time."""
        if self._closed:
            return
        self._closed = True
        self._encoder.kill()
        with suppress(OSError):  # what was still buffered has nowhere to go
            self._encoder.stdin.close()
        self._encoder.wait()
        self._messages.close()
        self._encoded.unlink(missing_ok=True)
        self._finished.unlink(missing_ok=True)

    def _start_encoder(self) -> subprocess.Popen:
        frame_size = "{}x{}".format(*self._frame_size)
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", frame_size, "-r", str(self._fps)]
        filters = "scale={}:{}:{},format=yuv420p,{}".format(*self._size, SCALER, TAGGER)
        command = [*_ffmpeg(), *raw, "-i", "pipe:0", "-vf", filters, *ENCODER, str(self._encoded)]
        # Its own session, so that Ctrl-C reaches Python alone, which then stops the encoder.
        return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=self._messages, start_new_session=True)

    def _close_encoder(self) -> None:
        with suppress(OSError):  # the exit status tells
            self._encoder.stdin.close()
        status = self._encoder.wait()
        self._messages.seek(0)
        self._check_status(status, self._messages.read())

    def _check_status(self, status: int, messages: bytes) -> None:
        if status:
            what = f"ffmpeg failed with status {status}; no file was kept; check the free disk space and the size"
            raise VideoError(f"{self.path}: {what}; it said: {_tail(messages)}")

    def _copy(self, metadata: str | None) -> None:
        """Copy the stream, with the index before the frames and ``metadata`` as its comment."""
        # Through a pipe: a command line would limit its length and show it to all users of the machine.
        if metadata and "\0" in metadata:
            raise ValueError("metadata must not contain a NUL character")
        escaped = (metadata or "").translate({ord(char): f"\\{char}" for char in "=;#\\\n\r"})
        text = f";FFMETADATA1\ncomment={escaped}"  # no newline: after a backslash ffmpeg would keep it
        inputs = ["-f", "mp4", "-i", str(self._encoded), "-f", "ffmetadata", "-i", "pipe:0"]
        output = ["-map", "0:v:0", "-map_metadata", "1", "-c", "copy", "-movflags", "+faststart", "-f", "mp4"]
        command = [*_ffmpeg(), *inputs, *output, str(self._finished)]
        result = subprocess.run(command, input=text.encode(), capture_output=True, start_new_session=True)
        self._check_status(result.returncode, result.stderr)

    def _check(self) -> None:
        found = astuple(probe(self._finished))[:4]
        wanted = (*self._size, self._num_frames, self._fps)
        if found != wanted:
            what = f"ffmpeg wrote (width, height, frames, fps) {found} instead of {wanted}"
            raise VideoError(f"{self.path}: {what}; no file was kept; set IMAGEIO_FFMPEG_EXE to another ffmpeg")

    def _move_into_place(self) -> None:
        try:
            if not self._overwrite:
                os.link(self._finished, self._target)  # unlike a rename, never replaces a file
        except OSError:  # the name is taken meanwhile, or the file system has no links
            check_output_path(self._target, overwrite=False)
        os.replace(self._finished, self._target)
        _sync(self._target.parent)


def check_output_path(path: Path, overwrite: bool) -> None:
    """Refuse a path that ``VideoWriter`` could not write, before any work is done.

    Raises:
        ConfigError: another suffix than .mp4, a directory, or a folder missing or not writable.
        OutputExistsError: a file is there and ``overwrite`` is false.
        VideoError: there is no ffmpeg.
    """
    folder = path.parent
    if path.suffix.lower() != ".mp4":
        raise ConfigError(f"output {path}: the name must end in .mp4; try {path.name or 'video'}.mp4")
    if not folder.is_dir():
        raise ConfigError(f"output {path}: the folder {folder} does not exist; create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"output {path}: the folder {folder} is not writable; choose another or change its mode")
    if len(os.fsencode(path.name)) > 255:
        raise ConfigError(f"output {path}: the name is longer than 255 bytes; choose a shorter one")
    if path.is_dir():
        raise ConfigError(f"output {path}: is a folder; name a file in it, such as {path / 'video.mp4'}")
    _ffmpeg()  # better missed now than after the work
    if not overwrite and os.path.lexists(path):
        raise OutputExistsError(f"output {path}: exists; name another file, or replace it with --overwrite")


def probe(path: Path) -> VideoInfo:
    """Decode an mp4 once and say what it holds; VideoError where it is not a whole video."""
    # imageio_ffmpeg's reader times out on a long comment and fails on some Unicode line breaks in one.
    path = _check_complete(path)
    decode = ["-xerror", "-nostats", "-progress", "pipe:1", "-i", str(path), "-map", "0:v:0", "-f", "null", "-"]
    result = subprocess.run([*_ffmpeg("info"), *decode], stdin=subprocess.DEVNULL, capture_output=True)
    stream = STREAM_LINE.search(result.stderr)
    counts = re.findall(rb"^frame=(\d+)", result.stdout, re.MULTILINE)
    if result.returncode or not stream or not counts:
        raise _unreadable(path, _tail(result.stderr))
    width, height, num_frames, fps = int(stream["width"]), int(stream["height"]), int(counts[-1]), float(stream["fps"])
    codec, pixel_format = stream["codec"].decode(), stream["pixels"].decode()
    return VideoInfo(width, height, num_frames, fps, num_frames / fps, codec, pixel_format)


def read_metadata(path: Path) -> str | None:
    """The comment tag of an mp4, or None where it has none."""
    path = _check_complete(path)
    start, end = 0, path.stat().st_size
    for wanted, skipped in COMMENT_BOXES:
        inner = (span for kind, *span in _boxes(path, start, end) if kind == wanted)
        start, end = next(inner, (0, 0))
        if not end:
            return None
        start += skipped  # the version and flags of that kind of box
    with path.open("rb") as file:
        file.seek(start)
        return file.read(end - start).decode("utf-8", "replace")


def read_frames(path: Path) -> Iterator[np.ndarray]:
    """The frames of an mp4 one by one, each uint8 [height, width, 3]."""
    return _decode(_check_complete(path))


def _decode(path: Path) -> Iterator[np.ndarray]:
    # PPM pictures, since each carries its size.
    command = [*_ffmpeg(), "-xerror", "-i", str(path), "-map", "0:v:0", "-c:v", "ppm", "-f", "image2pipe", "-"]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
    with tempfile.TemporaryFile() as messages, subprocess.Popen(command, stderr=messages, **pipes) as decoder:
        pictures = decoder.stdout
        while header := pictures.readline() + pictures.readline() + pictures.readline():
            width, height = map(int, header.split()[1:3])
            data = pictures.read(width * height * 3)
            if len(data) < width * height * 3:
                break  # its exit status tells
            yield np.frombuffer(data, np.uint8).reshape(height, width, 3)
        if decoder.wait():
            messages.seek(0)
            raise _unreadable(path, _tail(messages.read()))


def _check_complete(path: Path) -> Path:
    """Refuse what is not a whole mp4; ffmpeg itself decodes a truncated one without complaint."""
    path = Path(os.path.abspath(path))  # a name such as "a:b.mp4" would be a protocol to ffmpeg
    kinds = [kind for kind, _, _ in _boxes(path, 0, None)]
    if kinds[:1] != [b"ftyp"] or not {b"moov", b"mdat"} <= set(kinds):
        raise _unreadable(path, "it is empty, cut short or of another format")
    return path


def _boxes(path: Path, start: int, end: int | None) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each mp4 box between two offsets; VideoError where one is cut short."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END) if end is None else end
            while end - start >= 8:
                file.seek(start)
                head = file.read(16)
                size, kind, header = int.from_bytes(head[:4], "big"), head[4:8], 8
                if size == 1 and len(head) == 16:  # the size did not fit into 32 bits
                    size, header = int.from_bytes(head[8:], "big"), 16
                elif size == 0:  # the last box of the file
                    size = end - start
                if size < header or start + size > end:
                    raise OSError("it is cut short or of another format")
                yield kind, start + header, start + size
                start += size
    except OSError as error:
        raise _unreadable(path, error.strerror or error) from error


def _ffmpeg(level: str = "error") -> list[str]:
    """How every command begins: it may replace its own output, and prints messages of ``level``."""
    with suppress(RuntimeError):  # none was found
        if exe := shutil.which(imageio_ffmpeg.get_ffmpeg_exe()):
            return [exe, "-y", "-hide_banner", "-v", level]
    raise VideoError("no ffmpeg was found; reinstall imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE to an ffmpeg")


def _tail(messages: bytes) -> str:
    return messages.decode("utf-8", "replace").strip()[-1500:] or "it left no message"


def _unreadable(path: Path, cause: object) -> VideoError:
    return VideoError(f"{path}: cannot be read as an mp4 video: {cause}; make or download it again")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
