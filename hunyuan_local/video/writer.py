"""Encodes frames as they arrive, then checks the finished file and moves it into place."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from typing import IO

import numpy as np

from ..config.places import message_file
from ..durable import discard
from ..errors import VideoError
from ..schema import VideoInfo
from .ffmpeg import check_status, ffmpeg
from .output import check_output_path, move_into_place, partial_path
from .reader import probe
from .tagging import copy_with_comment

Size = tuple[int, int]  # width, height
ENCODER = ["-c:v", "libx264", "-crf", "17", "-pix_fmt", "yuv420p", "-f", "mp4"]  # crf 17 is visually lossless
SCALER = "flags=lanczos+accurate_rnd+full_chroma_int:out_color_matrix=bt709:out_range=tv"
TAGGER = "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"


class VideoWriter:
    """Encodes frames as they arrive and moves the finished file into place.

    A context manager that deletes all files on exit unless ``finish`` succeeded. The encoder scales frames of
    ``frame_size`` to ``size``, the size of the video.

    Raises:
        ConfigError, OutputExistsError: raised on construction, see :func:`check_output_path`.
        VideoError: the encoder failed; the message ends with ffmpeg's output.
    """

    def __init__(self, path: Path, *, frame_size: Size, fps: int, size: Size | None = None, overwrite: bool = False):
        self.path = path
        check_output_path(path, overwrite)
        self._frame_size, self._size = frame_size, size or frame_size
        self._fps, self._overwrite = fps, overwrite
        self._num_frames, self._closed = 0, False
        self.info: VideoInfo | None = None
        self._target = Path(os.path.abspath(self.path))
        self._encoded = partial_path(self._target, ".encode")
        self._finished = partial_path(self._target)
        self._messages = message_file()  # closed by abort
        self._encoder = self._start_encoder()
        assert self._encoder.stdin is not None  # it is a pipe
        self._raw: IO[bytes] = self._encoder.stdin

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    def write(self, frames: np.ndarray) -> None:
        """Encode uint8 frames [n, height, width, 3]; blocks while the encoder catches up."""
        width, height = self._frame_size
        if self._closed:
            raise ValueError(f"the writer of {self.path} is closed")
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (height, width, 3):
            raise ValueError(f"frames must be uint8 [n, {height}, {width}, 3], not {frames.dtype} {[*frames.shape]}")
        try:
            for frame in frames:
                self._raw.write(np.ascontiguousarray(frame).data)
                self._num_frames += 1
        except OSError as error:
            self._close_encoder()
            raise VideoError(f"{self.path}: ffmpeg stopped early; no file was kept; try again") from error

    def finish(self, metadata: str | None = None) -> Path:
        """Finish the file with ``metadata``, check it and move it into place; sets ``info`` to its properties."""
        if self._closed or not self._num_frames:
            self.abort()
            raise ValueError(f"the writer of {self.path} is closed or got no frames")
        try:
            self._close_encoder()
            copy_with_comment(self._encoded, self._finished, metadata, named=self.path)
            self.info = self._check()
            if self._closed:  # aborted by another thread, so do not publish the file
                raise VideoError(f"{self.path}: aborted; no file was kept")
            move_into_place(self._finished, self._target, self._overwrite)
        except OSError as error:
            raise VideoError(f"{self.path}: cannot be written: {error}; check the disk and the folder") from error
        finally:
            self.abort()
            self._delete_partial_files()
        return self.path

    def abort(self) -> None:
        """Stop the encoder and delete unfinished files; can be called from any thread, and more than once."""
        if self._closed:
            return
        self._closed = True
        self._encoder.kill()
        with suppress(OSError):  # flushing the buffer fails, since the encoder is gone
            self._raw.close()
        self._encoder.wait()
        self._messages.close()
        self._delete_partial_files()

    def _delete_partial_files(self) -> None:
        discard(self._encoded)
        discard(self._finished)

    def _start_encoder(self) -> subprocess.Popen[bytes]:
        frame_size = "{}x{}".format(*self._frame_size)
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", frame_size, "-r", str(self._fps)]
        filters = "scale={}:{}:{},format=yuv420p,{}".format(*self._size, SCALER, TAGGER)
        command = [*ffmpeg(), *raw, "-i", "pipe:0", "-vf", filters, *ENCODER, str(self._encoded)]
        # A separate session, so that Ctrl-C reaches only Python, which then stops the encoder.
        return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=self._messages, start_new_session=True)

    def _close_encoder(self) -> None:
        with suppress(OSError):  # the exit status shows the error
            self._raw.close()
        status = self._encoder.wait()
        self._messages.seek(0)
        check_status(self.path, status, self._messages.read())

    def _check(self) -> VideoInfo:
        info = probe(self._finished)
        found = astuple(info)[:4]
        wanted = (*self._size, self._num_frames, self._fps)
        if found != wanted:
            what = f"ffmpeg wrote (width, height, frames, fps) {found} instead of {wanted}"
            raise VideoError(f"{self.path}: {what}; no file was kept; set IMAGEIO_FFMPEG_EXE to another ffmpeg")
        return info
