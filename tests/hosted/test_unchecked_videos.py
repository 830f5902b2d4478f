"""A paid video that cannot be checked or rewritten is still delivered, or kept separately."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import imageio_ffmpeg
import pytest
from hosted_settings import QUICK, REQUEST
from standin import StandIn, sample_video

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.hosted import arrival
from hunyuan_local.backends.hosted.open_tasks import OpenTasks
from hunyuan_local.backends.hosted.wavespeed import WaveSpeedBackend
from hunyuan_local.config import SafetyConfig
from hunyuan_local.errors import DownloadError, OutputExistsError, UncheckedVideoError, VideoError
from hunyuan_local.jobs.folder import DataFolder
from hunyuan_local.jobs.housekeeping import discard, sweep
from hunyuan_local.jobs.recovery import finished_before
from hunyuan_local.jobs.store import JobStore
from hunyuan_local.jobs.worker import Worker
from hunyuan_local.jobs.worker_config import WorkerConfig
from hunyuan_local.provenance import read_provenance
from hunyuan_local.schema import GenerationResult
from hunyuan_local.video import probe

pytestmark = pytest.mark.usefixtures("starts_process")

PLAIN = sample_video(64, 48, 2)
UNKNOWN = PLAIN.replace(b"avc1\0\0\0\0", b"zzz1\0\0\0\0")  # an unknown codec
FLAG, BLOCK = SafetyConfig(mode="flag"), SafetyConfig(mode="block")

Fetch = Callable[..., GenerationResult]


def converted(tmp_path: Path, name: str, *options: str) -> bytes:
    (tmp_path / "source").write_bytes(PLAIN)
    source = ["-i", str(tmp_path / "source"), "-f", "lavfi", "-i", "sine=d=0.1"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *source, *options, str(tmp_path / name)]
    subprocess.run(command, check=True)
    return (tmp_path / name).read_bytes()


@pytest.fixture
def open_tasks(tmp_path: Path) -> OpenTasks:
    return OpenTasks(tmp_path / "state")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The video's path, in an otherwise empty folder."""
    (tmp_path / "videos").mkdir()
    return tmp_path / "videos"


@pytest.fixture
def no_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the check for a classifier before generating, so that the missing one is noticed only afterwards."""
    monkeypatch.setattr("hunyuan_local.backends.begin.prepare", lambda *_: None)
    monkeypatch.setattr("hunyuan_local.backends.hosted.fetch.prepare", lambda *_: None)


@pytest.fixture
def service() -> Iterator[Callable[[bytes], WaveSpeedBackend]]:
    """Creates the adapter of a service that delivers this file."""
    ends: list[Callable[[], object]] = []

    def make(video: bytes, open_tasks: OpenTasks) -> WaveSpeedBackend:
        standin = StandIn(video, polls_until_done=0)
        standin.__enter__()
        ends.append(lambda: standin.__exit__(None, None, None))
        backend = WaveSpeedBackend(api_key=standin.key, base_url=standin.url, pacing=QUICK, open_tasks=open_tasks)
        ends.append(backend.close)
        return backend

    yield make
    for end in reversed(ends):
        end()


@pytest.fixture
def fetch(service: Callable[..., WaveSpeedBackend], open_tasks: OpenTasks, folder: Path) -> Fetch:
    """Generates a video at a service that delivers this file."""

    def run(video: bytes, **options: object) -> GenerationResult:
        return service(video, open_tasks).generate(REQUEST, GenerationContext(folder / "a.mp4", **options))

    return run


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_video_that_cannot_be_decoded_is_delivered_as_it_came_and_says_so(
    fetch: Fetch, folder: Path, open_tasks: OpenTasks
) -> None:
    reported: list[str] = []
    result = fetch(UNKNOWN, on_note=reported.append)
    assert result.path.read_bytes() == UNKNOWN
    assert (result.video, result.provenance["frames_sha256"], open_tasks.jobs()) == (None, None, [])
    (note,) = [note for note in result.notes if "not checked" in note]
    assert "cannot be decoded here" in note and "no decoder found" in note and note in reported


def test_its_statement_stands_next_to_it(fetch: Fetch, folder: Path) -> None:
    result = fetch(UNKNOWN)
    assert names(folder) == ["a.mp4", "a.mp4.json"]
    assert read_provenance(result.path).model_dump(mode="json") == result.provenance
    assert result.provenance["file_sha256"] == hashlib.sha256(UNKNOWN).hexdigest()


def test_a_statement_next_to_another_video_is_not_taken_for_its_own(fetch: Fetch) -> None:
    result = fetch(UNKNOWN)
    result.path.write_bytes(PLAIN)
    with pytest.raises(VideoError, match=r"contains no provenance|another program wrote the file"):
        read_provenance(result.path)


def test_a_file_that_stands_there_is_not_replaced_by_a_statement(fetch: Fetch, folder: Path) -> None:
    (folder / "a.mp4.json").write_text("mine")
    result = fetch(UNKNOWN)
    assert ((folder / "a.mp4.json").read_text(), result.path.read_bytes()) == ("mine", UNKNOWN)
    assert "its provenance could not be written" in result.notes[-1] and result.provenance["notes"] == result.notes


@pytest.mark.parametrize(
    ("name", "options"), [("b.webm", ("-c:v", "libvpx-vp9", "-an")), ("b.mov", ("-c:v", "prores_ks", "-an"))]
)
def test_what_cannot_be_an_mp4_is_checked_and_delivered_as_it_came(
    fetch: Fetch, tmp_path: Path, name: str, options: tuple[str, ...]
) -> None:
    video = converted(tmp_path, name, *options)
    result = fetch(video)
    assert (result.path.read_bytes(), result.video.num_frames) == (video, 2)
    assert result.provenance["frames_sha256"] and "the file is unmodified" in result.notes[-1]
    assert read_provenance(result.path).frames_sha256 == result.provenance["frames_sha256"]


def test_ten_bits_are_no_obstacle(fetch: Fetch, tmp_path: Path, folder: Path) -> None:
    result = fetch(converted(tmp_path, "b.mp4", "-pix_fmt", "yuv420p10le", "-an"))
    assert (result.video.pixel_format, result.video.num_frames, names(folder)) == ("yuv420p10le", 2, ["a.mp4"])
    assert read_provenance(result.path).frames_sha256


def test_the_sound_of_a_video_stays(fetch: Fetch, tmp_path: Path) -> None:
    result = fetch(converted(tmp_path, "b.mp4", "-c:v", "copy", "-c:a", "aac"))
    said = subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-i", result.path], capture_output=True, text=True).stderr
    assert "Audio: aac" in said and read_provenance(result.path).frames_sha256


def test_no_fault_of_our_reader_costs_a_video(fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Path) -> Iterator[object]:
        raise ValueError("invalid literal for int()")

    monkeypatch.setattr(arrival, "read_frames", fails)
    result = fetch(PLAIN)
    assert (result.video.num_frames, result.provenance["frames_sha256"]) == (2, None)
    assert "cannot be decoded here (ValueError: invalid literal for int())" in result.notes[-1]


def test_a_full_disk_leaves_the_video_as_it_came(fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise VideoError("a.mp4: cannot be written: no space; check the disk", "no space left")

    monkeypatch.setattr(arrival, "publish", fails)
    result = fetch(PLAIN)
    assert (result.path.read_bytes(), probe(result.path).num_frames) == (PLAIN, 2)
    assert "cannot be remuxed (no space left)" in result.notes[-1]


def test_a_name_that_was_taken_meanwhile_leaves_the_task_to_resume(
    fetch: Fetch, folder: Path, open_tasks: OpenTasks
) -> None:
    def take(progress: object) -> None:
        (folder / "a.mp4").write_text("mine")

    with pytest.raises(OutputExistsError, match="resume"):
        fetch(UNKNOWN, on_progress=take)
    assert ((folder / "a.mp4").read_text(), len(open_tasks.jobs())) == ("mine", 1)


# The safety check


@pytest.mark.usefixtures("no_classifier")
def test_a_check_that_cannot_be_made_is_reported_where_flagged_videos_are_delivered(fetch: Fetch) -> None:
    result = fetch(UNKNOWN, safety=FLAG)
    assert (result.safety, result.path.read_bytes()) == (None, UNKNOWN)
    assert any("the safety check was not made: its frames cannot be decoded" in note for note in result.notes)


@pytest.mark.usefixtures("no_classifier")
@pytest.mark.parametrize("video", [UNKNOWN, PLAIN], ids=["undecodable", "classifier fails"])
def test_where_only_checked_videos_are_published_it_is_kept_aside(
    fetch: Fetch, folder: Path, open_tasks: OpenTasks, monkeypatch: pytest.MonkeyPatch, video: bytes
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr("hunyuan_local.backends.safety_check.Inspection._judge", fails)
    with pytest.raises(UncheckedVideoError) as caught:
        fetch(video, safety=BLOCK)
    (kept,) = folder.iterdir()
    assert (kept.read_bytes(), kept, kept.suffix) == (video, caught.value.path, ".unchecked")
    assert str(kept) in str(caught.value) and "hunyuan-local resume" in str(caught.value)
    assert (caught.value.exit_code, len(open_tasks.jobs())) == (23, 1)


@pytest.mark.usefixtures("no_classifier")
def test_a_classifier_that_fails_costs_no_video_where_flagged_ones_are_delivered(
    fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr("hunyuan_local.backends.safety_check.Inspection._judge", fails)
    result = fetch(PLAIN, safety=FLAG)
    assert (result.safety, read_provenance(result.path).notes) == (None, result.notes)
    assert (
        result.notes[-1]
        == "the safety check was not made: the classifier failed: RuntimeError: CUDA error: out of memory"
    )


@pytest.mark.parametrize(
    "body", [b"", b"<html>busy</html>", UNKNOWN[:-10], b"\0" * 1000], ids=["empty", "page", "cut", "zeros"]
)
def test_what_is_not_a_video_is_left_to_be_fetched_again(
    fetch: Fetch, folder: Path, open_tasks: OpenTasks, body: bytes
) -> None:
    with pytest.raises(DownloadError, match=r"returned an incomplete video file.*hunyuan-local resume"):
        fetch(body)
    assert (names(folder), len(open_tasks.jobs())) == ([], 1)


# Jobs


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path / "data")


def worked(data: DataFolder, store: JobStore, backend: WaveSpeedBackend, safety: SafetyConfig) -> str:
    """The id of a job that a worker has finished."""
    job_id = store.enqueue(REQUEST, backend.identity, {"dialect": "wavespeed"}).job_id
    worker = Worker(data, store, backend, WorkerConfig(name="w", beat_s=0.05, poll_s=0.05, pause_s=0.05, safety=safety))
    store_fail, store_succeed = store.fail, store.succeed

    def ended(call: Callable[..., bool]) -> Callable[..., bool]:
        return lambda *given: (call(*given), worker.stop())[0]

    store.fail, store.succeed = ended(store_fail), ended(store_succeed)
    worker.run()
    return job_id


@pytest.mark.usefixtures("no_classifier")
def test_a_job_whose_video_is_kept_aside_fails_and_keeps_it(
    data: DataFolder, service: Callable[..., WaveSpeedBackend], open_tasks: OpenTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hunyuan_local.jobs.worker.prepare", lambda *_: None)
    store = data.store()
    job = store.get(worked(data, store, service(UNKNOWN, open_tasks), BLOCK))
    (kept,) = (data.root / "videos").iterdir()
    assert (job.status, job.failure, job.attempts, kept.read_bytes()) == ("failed", "execution", 1, UNKNOWN)
    assert str(kept) in job.error and not data.video(job).exists()
    sweep(data, store, now=kept.stat().st_mtime + 1e6)
    assert kept.exists()
    assert discard(data, store, job) and not kept.exists()


def test_a_video_that_an_attempt_left_unchecked_is_not_paid_for_again(
    data: DataFolder, service: Callable[..., WaveSpeedBackend], open_tasks: OpenTasks
) -> None:
    store = data.store()
    job = store.get(worked(data, store, service(UNKNOWN, open_tasks), SafetyConfig()))
    assert job.status == "succeeded"
    found = finished_before(job, data.video(job), SafetyConfig())
    assert found is not None and found.video is None
    assert found.model_dump(mode="json", exclude={"path"}) | {"timings": 0} == job.result | {"timings": 0}
    with pytest.raises(UncheckedVideoError) as caught:
        finished_before(job, data.video(job), BLOCK)
    assert (caught.value.path.read_bytes(), data.video(job).exists()) == (UNKNOWN, False)


def test_the_statement_of_a_job_is_json(fetch: Fetch, folder: Path) -> None:
    fetch(UNKNOWN)
    assert json.loads((folder / "a.mp4.json").read_text())["remote"]["remote_id"]
