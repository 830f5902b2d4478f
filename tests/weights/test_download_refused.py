"""What is not downloaded: refused models, unaccepted licences, and files that are already in the cache."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hub_user import lead_to
from local_hub import COMMIT, LARGEST, MB, REPOSITORY, LocalHub

from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.config import Licence, ModelConfig, configs_dir, load_model_config, load_profile
from hunyuan_local.errors import ConfigError, ModelLoadError, UnknownModelError
from hunyuan_local.pipeline.loading.loader import load_model
from hunyuan_local.schema import GenerationRequest
from hunyuan_local.weights.cache import find_any
from hunyuan_local.weights.files import has_configs, missing_files
from hunyuan_local.weights.licence import accept, is_accepted, licence_of
from hunyuan_local.weights.source import check_obtainable, fetch, known_configs

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
def test_what_the_hub_answers_is_reported(
    refusal: tuple[int, str], error: type[Exception], words: str, cache: Path
) -> None:
    with LocalHub(refuse=refusal) as hub, pytest.raises(error, match=words):
        fetch(TINY, hub.at(cache))


def test_without_a_network_the_remedy_is_reported(cache: Path) -> None:
    with LocalHub() as hub:
        pass
    with pytest.raises(ModelLoadError, match=r"could not be reached.*path of a folder"):
        fetch(TINY, hub.at(cache))


def test_without_a_network_a_complete_model_is_enough(cache: Path) -> None:
    notes: list[str] = []
    with LocalHub() as hub:
        folder = fetch(TINY, hub.at(cache))
    assert fetch(TINY, hub.at(cache), on_note=notes.append) == folder
    assert "using the complete copy in the cache" in notes[0]


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


def bare(model_id: str) -> ModelConfig:
    return load_model_config(model_id)


def test_a_repository_of_which_nothing_is_known_is_under_no_known_licence(cache: Path) -> None:
    assert (bare("someone/tiny").licence, licence_of(bare("someone/tiny"), None)) == (None, None)


def test_the_repository_of_a_preset_is_under_its_licence() -> None:
    known = load_model_config("hunyuan-video")
    assert bare(known.model_id).licence == known.licence


def test_what_has_the_layers_of_the_large_model_is_under_its_licence(tmp_path: Path) -> None:
    large = json.loads((configs_dir() / "architectures" / "hunyuan-video.json").read_text())["transformer"]
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text(json.dumps(large))
    assert licence_of(bare("someone/finetune"), tmp_path) == load_model_config("hunyuan-video").licence


def test_what_has_other_layers_is_under_no_known_licence(cache: Path) -> None:
    assert licence_of(bare("someone/tiny"), Path(load_model_config("tiny").source)) is None


def test_a_fine_tune_is_recognised_before_anything_large_is_fetched(cache: Path) -> None:
    with LocalHub() as hub:
        config = "transformer/config.json"
        large = json.loads((configs_dir() / "architectures" / "hunyuan-video.json").read_text())["transformer"]
        hub.files[config] = json.dumps(large).encode()
        with pytest.raises(ConfigError, match=r"Tencent Hunyuan.*--accept-licence"):
            fetch(bare("someone/tiny"), hub.at(cache))
        assert hub.asked_for(LARGEST) == []


# What a model is, checked before planning


def test_the_hub_says_what_an_unknown_repository_is_without_its_weights(cache: Path) -> None:
    with LocalHub() as hub:
        folder = known_configs(bare("someone/tiny"), hub.at(cache))
        assert has_configs(folder) and hub.asked_for(LARGEST) == []


def test_a_repository_that_does_not_exist_is_an_unknown_model(cache: Path) -> None:
    with LocalHub() as hub, pytest.raises(ConfigError, match="no such Hub repository"):
        known_configs(bare("no/such-model"), hub.at(cache))


def test_a_name_of_which_nothing_is_here_and_no_hub_can_be_asked_has_exit_code_2(cache: Path) -> None:
    with LocalHub() as hub:
        pass
    with pytest.raises(UnknownModelError, match=r"'no/such-model'.*could not be reached.*check the name") as caught:
        known_configs(bare("no/such-model"), hub.at(cache))
    assert caught.value.exit_code == 2


def test_of_a_preset_that_is_not_here_nothing_is_asked(cache: Path) -> None:
    with LocalHub() as hub:
        assert (known_configs(load_model_config("hunyuan-video"), hub.at(cache)), hub.calls) == (None, [])


@pytest.fixture
def cached(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A complete snapshot of ``someone/tiny`` in the cache, offline."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    repository = cache / "models--someone--tiny"
    shutil.copytree(load_model_config("tiny").source, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return repository


def test_a_line_end_behind_the_commit_of_a_revision_changes_nothing(cached: Path) -> None:
    (cached / "refs" / "main").write_text(f"{COMMIT}\n")
    assert check_obtainable(bare("someone/tiny")) == cached / "snapshots" / COMMIT


def test_a_commit_to_which_no_revision_leads_is_named(cached: Path) -> None:
    shutil.rmtree(cached / "refs")
    with pytest.raises(ModelLoadError, match=f"has no revision 'main', but {COMMIT}.*--revision"):
        check_obtainable(bare("someone/tiny"))
    assert check_obtainable(bare("someone/tiny").with_revision(COMMIT)) == cached / "snapshots" / COMMIT


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("transformer/diffusion_pytorch_model.safetensors", r"transformer/\*\.safetensors"),
        ("scheduler/scheduler_config.json", "scheduler/scheduler_config.json"),
        ("vae/config.json", "vae/config.json"),
        ("model_index.json", "model_index.json"),
    ],
)
def test_a_part_of_a_checkpoint_names_what_it_lacks_before_anything_is_planned(
    file: str, named: str, cached: Path
) -> None:
    (cached / "snapshots" / COMMIT / file).unlink()
    with pytest.raises(ModelLoadError, match=f"lacks {named}, and HF_HUB_OFFLINE is set") as caught:
        LocalBackend("someone/tiny").generate(GenerationRequest(prompt="x"))
    assert caught.value.exit_code == 3


def test_a_folder_names_what_it_lacks_before_anything_is_planned(tmp_path: Path) -> None:
    folder = shutil.copytree(load_model_config("tiny").source, tmp_path / "copy")
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match=r"lacks vae/\*\.safetensors"):
        LocalBackend(str(folder)).generate(GenerationRequest(prompt="x"))


def test_a_revision_that_leads_out_of_the_repository_is_none(cached: Path) -> None:
    assert find_any(bare("someone/tiny").with_revision("../..")) is None


# What only a Hub id describes


def as_image_to_video(hub: LocalHub, kind: str = "token_replace") -> None:
    """Turn the configs of ``someone/tiny`` into those of an image-to-video model."""
    changes = {
        "model_index.json": {"_class_name": "HunyuanVideoImageToVideoPipeline"},
        "transformer/config.json": {"image_condition_type": kind},
    }
    for name, fields in changes.items():
        hub.files[name] = json.dumps(json.loads(hub.files[name]) | fields).encode()


@pytest.mark.parametrize(
    ("kind", "preset"), [("token_replace", "hunyuan-video-i2v"), ("latent_concat", "hunyuan-video-i2v-33ch")]
)
def test_a_hub_id_of_image_to_video_is_known_as_such_before_its_weights_are_here(
    kind: str, preset: str, hub_of_the_environment: LocalHub
) -> None:
    as_image_to_video(hub_of_the_environment, kind)
    backend, known = LocalBackend("someone/tiny", "cpu"), load_model_config(preset)
    assert (backend.capabilities.takes_image, backend.config.defaults) == (True, known.defaults)
    assert (backend.config.model_id, backend.config.name) == ("someone/tiny", "someone/tiny")
    assert hub_of_the_environment.asked_for(LARGEST) == []


def test_the_cache_answers_for_the_hub(
    hub_of_the_environment: LocalHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_image_to_video(hub_of_the_environment)
    known_configs(bare("someone/tiny"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before = len(hub_of_the_environment.calls)
    assert LocalBackend("someone/tiny", "cpu").config.takes_image
    assert len(hub_of_the_environment.calls) == before


def test_a_hub_id_of_text_to_video_stays_one(hub_of_the_environment: LocalHub) -> None:
    config = LocalBackend("someone/tiny", "cpu").config
    assert (config.takes_image, config.defaults) == (False, load_model_config("hunyuan-video").defaults)


def test_a_hub_id_of_which_nothing_is_known_is_not_guessed_about(
    hub_of_the_environment: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UnknownModelError, match=r"'someone/tiny-i2v'.*HF_HUB_OFFLINE is set"):
        LocalBackend("someone/tiny-i2v", "cpu")


def test_a_config_file_of_the_other_task_is_refused_before_the_weights_are_fetched(
    hub_of_the_environment: LocalHub,
) -> None:
    as_image_to_video(hub_of_the_environment)
    with pytest.raises(ConfigError, match=r"takes_image=False: .*ImageToVideoPipeline; set takes_image: true"):
        LocalBackend(TINY, "cpu").generate(GenerationRequest(prompt="x"))
    assert hub_of_the_environment.asked_for(LARGEST) == []


# Loading


@pytest.fixture
def hub_of_the_environment(cache: Path, monkeypatch: pytest.MonkeyPatch):
    """The loader uses the Hub that the environment names, which its client reads when it is imported."""
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
    reported: list = []
    load_model(TINY, load_profile("cpu"), reported.append)
    assert {progress.stage for progress in reported} == {"download"}


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
