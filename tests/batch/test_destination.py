"""Folders and fsspec file systems as the destination of finished videos."""

from __future__ import annotations

import uuid
from pathlib import Path

import fsspec
import pytest

from hunyuan_local.batch.destination import Destination
from hunyuan_local.errors import ConfigError, VideoError


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "made.mp4"
    path.write_bytes(b"frames")
    return path


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUNYUAN_LOCAL_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture(params=["folder", "file", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Destination:
    where = {
        "folder": str(tmp_path / "out"),
        "file": f"file://{tmp_path}/url",
        "memory": f"memory://batch-{uuid.uuid4()}/videos",
    }[request.param]
    return Destination(where)


def test_a_delivered_video_is_there_and_no_longer_here(place: Destination, video: Path) -> None:
    place.deliver(video, "a.mp4")
    assert (place.names(), video.exists()) == ({"a.mp4"}, False)


def test_its_content_has_arrived(place: Destination, video: Path) -> None:
    place.deliver(video, "a.mp4")
    with fsspec.open(place.location("a.mp4"), "rb") as file:
        assert file.read() == b"frames"


def test_a_video_is_delivered_again_over_an_older_one(place: Destination, video: Path) -> None:
    content = video.read_bytes()
    place.deliver(video, "a.mp4")
    video.write_bytes(content + b"!")
    place.deliver(video, "a.mp4")
    with fsspec.open(place.location("a.mp4"), "rb") as file:
        assert file.read() == b"frames!"


def test_a_new_place_holds_nothing(place: Destination) -> None:
    assert place.names() == set()


def test_an_empty_file_is_no_video(tmp_path: Path) -> None:
    place = Destination(str(tmp_path / "out"))
    (tmp_path / "out" / "a.mp4").touch()
    assert place.names() == set()


def test_the_state_of_a_folder_lies_in_it(tmp_path: Path) -> None:
    assert Destination(str(tmp_path / "out")).state == tmp_path / "out" / ".hunyuan-local"


def test_the_state_of_a_url_is_kept_by_the_url(tmp_path: Path) -> None:
    states = [Destination(f"file://{tmp_path}/{name}").state for name in ("a", "b", "a")]
    assert states[0] == states[2] != states[1] and states[0].parent == tmp_path / "state" / "batches"


def test_a_video_that_cannot_be_delivered_stays_here(tmp_path: Path, video: Path) -> None:
    place = Destination(str(tmp_path / "out"))
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    with pytest.raises(VideoError, match="run the same command to try again"):
        place.deliver(video, "a.mp4")
    assert video.exists()


def test_a_video_that_has_arrived_is_delivered_although_the_local_file_cannot_be_deleted(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Destination(f"memory://batch-{uuid.uuid4()}/videos")

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    place.deliver(video, "a.mp4")
    assert place.names() == {"a.mp4"}


def test_only_one_process_works_on_a_batch(tmp_path: Path) -> None:
    place = Destination(str(tmp_path / "out"))
    with place.hold(), pytest.raises(ConfigError, match="another process"), Destination(place.where).hold():
        pass


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="not writable"):
        Destination(str(tmp_path / "file" / "out"))


@pytest.mark.parametrize(("url", "words"), [("nosuch://bucket", "file"), ("s3://bucket/x", "install|s3fs|credentials")])
def test_a_url_of_no_use_is_refused_with_a_remedy(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Destination(url)
