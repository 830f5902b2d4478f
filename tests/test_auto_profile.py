"""The profile of a request: given by name, a mode of the plan, or chosen by the planner before any weight is read."""

from __future__ import annotations

from pathlib import Path

import pytest
from scribe import PROMPT as SCRIBE_PROMPT

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.local import profile_choice
from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.backends.local.profile_choice import choose_profile, named_profile, with_cache
from hunyuan_local.config import GIB, FirstBlockCache, MagCache, RewriteConfig, load_model_config, load_profile
from hunyuan_local.errors import ConfigError, GpuMemoryError
from hunyuan_local.planner import Machine, detect_machine, find_gpu
from hunyuan_local.provenance import read_provenance
from hunyuan_local.schema import GenerationRequest

TINY = load_model_config("tiny")
LARGE = load_model_config("hunyuan-video")
FULL_SIZE = GenerationRequest(prompt="a cat")


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this machine appear with 24 GiB of GPU memory and 64 GiB of main memory."""
    machine = Machine(24 * GIB, 64 * GIB, find_gpu("4090"))
    monkeypatch.setattr(profile_choice, "available_machine", lambda: machine)


@pytest.mark.parametrize("name", [None, "auto"])
def test_auto_is_left_to_the_plan(name: str | None) -> None:
    assert named_profile(name) is None


def test_a_mode_of_the_plan_is_a_profile() -> None:
    found = named_profile("group+int8+tiling")
    assert (found.offload, found.quantization, found.vae_tiling) == ("group", "int8", True)


def test_a_yaml_file_is_a_profile(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(load_profile("cpu").model_copy(update={"name": "mine"}).model_dump_json())  # JSON is YAML
    assert named_profile(str(file)).name == "mine"


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r"profile='fast': not known; use one of cpu, .*, auto, or a mode .*group"):
        named_profile("fast")


def test_the_choice_is_the_plans(card: None) -> None:
    profile = choose_profile(FULL_SIZE, LARGE).profile
    assert (profile.device, profile.offload, profile.quantization, profile.vae_tiling) == ("cuda", "group", None, True)


def test_the_reason_names_mode_memory_and_time(card: None) -> None:
    reason = choose_profile(FULL_SIZE, LARGE).reason
    assert reason.startswith("profile auto: group+tiling, needs 8.0 GiB") and "of 24.0 GiB of GPU memory" in reason
    assert "the fastest of" in reason and "min, a guess for this GPU, not counting model loading" in reason


def test_a_choice_that_is_not_exact_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_choice, "available_machine", lambda: Machine(16 * GIB, 24 * GIB, find_gpu("4080")))
    choice = choose_profile(FULL_SIZE.replace(width=512, height=320, num_frames=61), LARGE)
    assert choice.profile.quantization is not None and "changes the frames slightly" in choice.reason


def test_a_loaded_profile_stays_while_it_fits(card: None) -> None:
    loaded = named_profile("sequential+tiling")
    assert choose_profile(FULL_SIZE, LARGE, loaded).profile == loaded


def test_a_loaded_profile_that_is_too_small_is_replaced(card: None) -> None:
    assert choose_profile(FULL_SIZE, LARGE, named_profile("none")).profile.offload == "group"


def test_what_fits_nowhere_is_refused_before_any_weight_is_read(
    card: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hunyuan_local.pipeline.loading.loader.load_model", pytest.fail)
    backend = LocalBackend(model="hunyuan-video")
    request = FULL_SIZE.replace(num_frames=1001)
    with pytest.raises(GpuMemoryError, match=r"no mode of hunyuan-video fits .* what would fit: 1280x720"):
        backend.generate(request, GenerationContext(tmp_path / "a.mp4"))


@pytest.mark.usefixtures("starts_process")
def test_the_choice_is_in_the_file(small_request: GenerationRequest, tmp_path: Path) -> None:
    reported: list[str] = []
    context = GenerationContext(tmp_path / "a.mp4", on_note=reported.append)
    LocalBackend(model="tiny").generate(small_request, context)
    found = read_provenance(tmp_path / "a.mp4")
    assert (found.profile, found.runtime.offload, found.runtime.attention_backend) == ("auto", "none", "native")
    assert [note for note in found.notes if note.startswith("profile auto: none")] and set(found.notes) == set(reported)


@pytest.mark.usefixtures("starts_process")
@pytest.mark.parametrize(("profile", "times"), [(None, 1), ("cpu", 0)])
def test_the_machine_is_asked_once_a_video_and_not_for_a_profile_that_was_named(
    small_request: GenerationRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scribe: Path,
    profile: str | None,
    times: int,
) -> None:
    asked: list[Machine] = []
    monkeypatch.setattr(profile_choice, "available_machine", lambda: asked.append(detect_machine()) or asked[-1])
    request = small_request.replace(prompt=SCRIBE_PROMPT, rewrite="normal")
    context = GenerationContext(tmp_path / "a.mp4", rewriting=RewriteConfig(model_id=str(scribe)))
    LocalBackend(model="tiny", profile=profile).generate(request, context)
    assert len(asked) == times


def test_a_cache_takes_the_place_of_the_profiles() -> None:
    cache = FirstBlockCache(kind="first-block")
    assert with_cache(load_profile("cpu"), cache, TINY).cache == cache


def test_a_cache_takes_the_place_of_another() -> None:
    profile = with_cache(load_profile("cpu"), MagCache(kind="magcache", mag_ratios=(1.0, 0.9)), TINY)
    cache = FirstBlockCache(kind="first-block")
    assert with_cache(profile, cache, TINY).cache == cache


def test_magcache_takes_the_models_ratios() -> None:
    model = TINY.model_copy(update={"mag_ratios": (1.0, 0.9, 0.8)})
    assert with_cache(load_profile("cpu"), MagCache(kind="magcache"), model).cache.mag_ratios == (1.0, 0.9, 0.8)


def test_magcache_without_ratios_is_refused() -> None:
    model = TINY.model_copy(update={"mag_ratios": ()})
    with pytest.raises(ConfigError, match=r"tiny has no mag_ratios.*--calibrate"):
        with_cache(load_profile("cpu"), MagCache(kind="magcache"), model)


def test_a_cache_that_cannot_be_compiled_is_refused() -> None:
    compiled = load_profile("cpu").model_copy(update={"compile": True})
    with pytest.raises(ConfigError, match="compile=True cannot be combined with cache"):
        with_cache(compiled, MagCache(kind="magcache", mag_ratios=(1.0, 0.9)), TINY)
