"""Downloading: which files, and resuming an interrupted download."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from filelock import FileLock
from hub_user import lead_to
from local_hub import LARGEST, MB, NEXT_COMMIT, REPOSITORY, LocalHub

from hunyuan_local.errors import ConfigError, ModelLoadError
from hunyuan_local.weights.cache import find
from hunyuan_local.weights.download import Transfer
from hunyuan_local.weights.files import missing_files
from hunyuan_local.weights.source import fetch

TINY = REPOSITORY


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def interrupt_after(count: int):
    """A callback that raises KeyboardInterrupt after this many bytes."""

    def look(transfer: Transfer) -> None:
        if transfer.done >= count:
            raise KeyboardInterrupt

    return look


# Which files


def test_the_files_are_those_that_the_pipeline_would_download(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import HunyuanVideoPipeline

    with LocalHub() as hub:
        ours = fetch(TINY, hub.at(cache))
        lead_to(hub, tmp_path / "theirs", monkeypatch)
        theirs = HunyuanVideoPipeline.download("someone/tiny", use_safetensors=True, cache_dir=tmp_path / "theirs")
    assert names(ours) == names(Path(theirs))


def test_they_arrive_as_they_are(cache: Path) -> None:
    with LocalHub() as hub:
        folder = fetch(TINY, hub.at(cache))
    assert {name: (folder / name).read_bytes() for name in names(folder)} == {
        name: hub.files[name] for name in names(folder)
    }


def test_the_pipeline_finds_nothing_missing(cache: Path) -> None:
    with LocalHub() as hub:
        assert missing_files(fetch(TINY, hub.at(cache))) == []


def test_a_complete_model_costs_one_question(cache: Path) -> None:
    with LocalHub() as hub:
        fetch(TINY, hub.at(cache))
        before = len(hub.calls)
        fetch(TINY, hub.at(cache))
    assert [call.path for call in hub.calls[before:]] == ["/api/models/someone/tiny"]


def test_the_token_is_shown_to_the_hub_alone(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with LocalHub() as hub:
        fetch(TINY, hub.at(cache))
    reported = {host: {call.headers.get("authorization") for call in hub.calls if call.host == host}
            for host in ("127.0.0.1", "localhost")}  # fmt: skip
    assert reported == {"127.0.0.1": {"Bearer hf_secret"}, "localhost": {None}}


def test_a_revision_has_its_own_name_in_the_cache(cache: Path) -> None:
    config = TINY.with_revision("refs/pr/1")
    with LocalHub() as hub:
        folder = fetch(config, hub.at(cache))
    assert (find(config, hub.at(cache)), find(TINY, hub.at(cache))) == (folder, None)


def test_a_commit_can_be_named(cache: Path) -> None:
    with LocalHub() as hub:
        config = TINY.with_revision(hub.commit)
        assert fetch(config, hub.at(cache)) == find(config, hub.at(cache))


def test_a_repository_without_safetensors_is_refused_before_anything_is_fetched(cache: Path) -> None:
    with LocalHub() as hub:
        hub.files = {name.replace(".safetensors", ".bin"): content for name, content in hub.files.items()}
        with pytest.raises(ConfigError, match=r"lacks transformer/\*\.safetensors"):
            fetch(TINY, hub.at(cache))
    assert len(hub.calls) == 1


def test_a_checkpoint_of_another_pipeline_is_refused_before_its_weights_are_fetched(cache: Path) -> None:
    with LocalHub() as hub:
        hub.files["model_index.json"] = b'{"_class_name": "FluxPipeline"}'
        with pytest.raises(ConfigError, match="FluxPipeline"):
            fetch(TINY, hub.at(cache))
    assert hub.asked_for(LARGEST) == []


# Interruptions


def test_a_broken_line_continues_where_it_broke(cache: Path) -> None:
    with LocalHub() as hub:
        whole = len(hub.files[LARGEST])
        hub.break_after = lambda count: MB if count == whole else None
        folder = fetch(TINY, hub.at(cache))
    first, second = hub.asked_for(LARGEST)
    assert (first.first_byte, 0 < second.first_byte < whole) == (0, True)
    assert (folder / LARGEST).read_bytes() == hub.files[LARGEST]


def test_after_an_interrupt_the_next_run_asks_for_the_rest(cache: Path) -> None:
    with LocalHub(break_after=lambda count: 2 * MB, stall=True) as hub:
        with pytest.raises(KeyboardInterrupt):
            fetch(TINY, hub.at(cache), on_transfer=interrupt_after(5 * MB))
        arrived = hub.part(cache, LARGEST).stat().st_size
        hub.break_after = lambda count: None
        folder = fetch(TINY, hub.at(cache))
    assert [call.first_byte for call in hub.asked_for(LARGEST)] == [0, arrived]
    assert (folder / LARGEST).read_bytes() == hub.files[LARGEST]


def test_what_has_arrived_is_counted_as_done(cache: Path) -> None:
    reported: list[Transfer] = []
    with LocalHub() as hub:
        hub.part(cache, LARGEST).write_bytes(hub.files[LARGEST][:MB])
        fetch(TINY, hub.at(cache), on_transfer=reported.append)
    assert (reported[0].done, reported[-1].done, reported[-1].progress.step) == (MB, reported[0].total, 100)


def test_a_server_that_knows_no_ranges_sends_it_all_again(cache: Path) -> None:
    with LocalHub(ignore_range=True) as hub:
        hub.part(cache, LARGEST).write_bytes(hub.files[LARGEST][:MB])
        folder = fetch(TINY, hub.at(cache))
    assert (folder / LARGEST).read_bytes() == hub.files[LARGEST]


def test_a_damaged_part_is_an_error_and_deleted(cache: Path) -> None:
    with LocalHub() as hub:
        part = hub.part(cache, LARGEST)
        part.write_bytes(b"x" * MB)
        with pytest.raises(ModelLoadError, match="was deleted"):
            fetch(TINY, hub.at(cache))
        assert not part.exists()
        assert missing_files(fetch(TINY, hub.at(cache))) == []


def test_a_server_that_refuses_a_file_is_named(cache: Path) -> None:
    with LocalHub() as hub:
        hub.part(cache, LARGEST).write_bytes(hub.files[LARGEST][:MB])
        hub.forbid = LARGEST
        with pytest.raises(ModelLoadError, match=r"failed \(HTTP 403 from localhost\).*same command again"):
            fetch(TINY, hub.at(cache))


def test_an_interrupted_update_leaves_the_old_version_in_use(cache: Path) -> None:
    with LocalHub() as hub:
        old = fetch(TINY, hub.at(cache))
        hub.commit = NEXT_COMMIT
        hub.files[LARGEST] += b"more"
        hub.break_after, hub.stall = (lambda count: MB), True
        with pytest.raises(KeyboardInterrupt):
            fetch(TINY, hub.at(cache), on_transfer=interrupt_after(7 * MB))
        assert find(TINY, hub.at(cache)) == old


def test_an_update_fetches_what_has_changed(cache: Path) -> None:
    with LocalHub() as hub:
        fetch(TINY, hub.at(cache))
        hub.commit = NEXT_COMMIT
        hub.files["README.md"] = hub.files["scheduler/scheduler_config.json"] = b'{"_class_name": "new"}'
        new = fetch(TINY, hub.at(cache))
    assert find(TINY, hub.at(cache)) == new
    assert len(hub.asked_for(LARGEST)) == 1


def test_a_second_process_waits_for_the_first(cache: Path) -> None:
    lock = cache / ".locks" / "models--someone--tiny" / "hunyuan-local.lock"
    lock.parent.mkdir(parents=True)
    first, notes = FileLock(lock, thread_local=False), []
    first.acquire()

    def note(text: str) -> None:
        notes.append(text)
        first.release()

    with LocalHub() as hub:
        second = threading.Thread(target=fetch, args=(TINY, hub.at(cache)), kwargs={"on_note": note})
        second.start()
        second.join()
    assert notes == ["another process is downloading someone/tiny; waiting for it"]
    assert find(TINY, hub.at(cache)) is not None
