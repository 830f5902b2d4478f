"""What is not downloaded: what is refused, whose licence was not accepted, what is here already."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hub_user import lead_to
from local_hub import LARGEST, MB, REPOSITORY, LocalHub

from hunyuan_local.config import Licence, ModelConfig, load_model_config, load_profile
from hunyuan_local.errors import ConfigError, ModelLoadError
from hunyuan_local.pipeline.loading.loader import load_model
from hunyuan_local.weights.files import missing_files
from hunyuan_local.weights.licence import accept, is_accepted
from hunyuan_local.weights.source import fetch

reads_weights = pytest.mark.usefixtures("loads_model")
TINY = REPOSITORY
LICENCE = Licence(name="A Licence", version="1", url="https://licence.invalid", not_licensed_in=["Nowhere"])


def under(licence: Licence | None, **changes: object) -> ModelConfig:
    return TINY.model_copy(update={"licence": licence} | changes)


def test_too_small_a_disk_is_refused_with_both_figures_and_a_remedy(cache: Path) -> None:
    with LocalHub() as hub, pytest.raises(ModelLoadError) as caught:
        fetch(TINY, hub.at(cache), free=lambda folder: 5 * MB)
    assert hub.asked_for(LARGEST) == []
    assert [word for word in ("12.1 MB", "5.0 MB free", str(cache), "HF_HOME") if word not in str(caught.value)] == []


def test_what_has_arrived_needs_no_more_room(cache: Path) -> None:
    with LocalHub() as hub:
        hub.part(cache, LARGEST).write_bytes(hub.files[LARGEST][: 5 * MB])
        fetch(TINY, hub.at(cache), free=lambda folder: 1_008 * MB)


def test_a_complete_model_needs_no_room(cache: Path) -> None:
    with LocalHub() as hub:
        fetch(TINY, hub.at(cache))
        fetch(TINY, hub.at(cache), free=lambda folder: 0)


@pytest.mark.parametrize(
    ("refusal", "error", "words"),
    [
        ((404, "RepoNotFound"), ConfigError, "no such Hub repository"),
        ((404, "RevisionNotFound"), ConfigError, "no such revision"),
        ((403, "GatedRepo"), ModelLoadError, "login"),
        ((500, ""), ModelLoadError, "could not be reached"),
    ],
)
def test_what_the_hub_answers_is_told(
    refusal: tuple[int, str], error: type[Exception], words: str, cache: Path
) -> None:
    with LocalHub(refuse=refusal) as hub, pytest.raises(error, match=words):
        fetch(TINY, hub.at(cache))


def test_without_a_network_the_remedy_is_told(cache: Path) -> None:
    with LocalHub() as hub:
        pass
    with pytest.raises(ModelLoadError, match=r"could not be reached.*path of a folder"):
        fetch(TINY, hub.at(cache))


def test_without_a_network_a_complete_model_is_enough(cache: Path) -> None:
    notes: list[str] = []
    with LocalHub() as hub:
        folder = fetch(TINY, hub.at(cache))
    assert fetch(TINY, hub.at(cache), on_note=notes.append) == folder
    assert "the one in the cache is complete" in notes[0]


def test_offline_nothing_is_asked(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with LocalHub() as hub, pytest.raises(ModelLoadError, match="HF_HUB_OFFLINE forbids"):
        fetch(TINY, hub.at(cache))
    assert hub.calls == []


def test_a_name_that_cannot_be_a_repository_is_refused(cache: Path) -> None:
    with LocalHub() as hub, pytest.raises(ConfigError, match="not a Hub id"):
        fetch(under(None, model_id="some one/ti ny"), hub.at(cache))


def test_a_cache_that_cannot_be_written_is_named(cache: Path) -> None:
    cache.write_text("no folder")
    with LocalHub() as hub, pytest.raises(ModelLoadError, match=r"cannot be written.*HF_HOME"):
        fetch(TINY, hub.at(cache))


# The licence


def test_without_acceptance_nothing_is_asked(cache: Path) -> None:
    with LocalHub() as hub, pytest.raises(ConfigError) as caught:
        fetch(under(LICENCE), hub.at(cache))
    assert hub.calls == []
    wanted = ("A Licence of 1", "https://licence.invalid", "does not apply in Nowhere", "--accept-licence")
    assert [word for word in wanted if word not in str(caught.value)] == []


def test_an_acceptance_is_remembered(cache: Path) -> None:
    accept(LICENCE)
    with LocalHub() as hub:
        assert missing_files(fetch(under(LICENCE), hub.at(cache))) == []


def test_another_version_of_the_licence_is_another_licence() -> None:
    accept(LICENCE)
    assert (is_accepted(LICENCE), is_accepted(LICENCE.model_copy(update={"version": "2"}))) == (True, False)


def test_an_acceptance_that_cannot_be_remembered_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HUNYUAN_LOCAL_STATE_DIR", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="HUNYUAN_LOCAL_STATE_DIR"):
        accept(LICENCE)


def test_the_large_models_are_under_the_same_licence() -> None:
    licence = load_model_config("hunyuan-video").licence
    assert licence is not None and licence == load_model_config("fast-hunyuan").licence


def test_a_hub_id_is_taken_to_be_made_from_the_large_model() -> None:
    assert load_model_config("someone/finetune").licence == load_model_config("hunyuan-video").licence


# Loading


@pytest.fixture
def hub_of_the_environment(cache: Path, monkeypatch: pytest.MonkeyPatch):
    """The loader asks the Hub that the environment names, which its client reads when it is imported."""
    with LocalHub() as hub:
        lead_to(hub, cache, monkeypatch)
        yield hub


@reads_weights
def test_a_downloaded_model_loads_offline(
    hub_of_the_environment: LocalHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fetch(TINY)
    before = len(hub_of_the_environment.calls)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert load_model(TINY, load_profile("cpu")).folder == folder
    assert len(hub_of_the_environment.calls) == before


@reads_weights
def test_the_hub_is_not_asked_about_a_model_that_is_here(hub_of_the_environment: LocalHub) -> None:
    fetch(TINY)
    before = len(hub_of_the_environment.calls)
    load_model(TINY, load_profile("cpu"))
    assert len(hub_of_the_environment.calls) == before


@reads_weights
def test_loading_downloads_with_progress_what_needs_no_acceptance(hub_of_the_environment: LocalHub) -> None:
    told: list = []
    load_model(TINY, load_profile("cpu"), told.append)
    assert {progress.stage for progress in told} == {"download"}


@reads_weights
def test_loading_downloads_what_was_accepted(hub_of_the_environment: LocalHub) -> None:
    accept(LICENCE)
    assert load_model(under(LICENCE), load_profile("cpu")).folder.is_dir()


def test_loading_does_not_download_what_was_not_accepted(hub_of_the_environment: LocalHub) -> None:
    with pytest.raises(ConfigError, match="hunyuan-local download --model tiny --accept-licence"):
        load_model(under(LICENCE), load_profile("cpu"))
    assert hub_of_the_environment.calls == []


@reads_weights
def test_a_model_that_is_here_by_other_means_needs_no_acceptance(
    hub_of_the_environment: LocalHub, tmp_path: Path
) -> None:
    folder = shutil.copytree(load_model_config("tiny").source, tmp_path / "copy")
    assert load_model(under(LICENCE, model_id=str(folder)), load_profile("cpu")).folder == folder
