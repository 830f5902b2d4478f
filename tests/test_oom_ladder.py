"""Out of memory on the way: what is tried next, from which step, and what the result says of it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.ladder import OomLadder
from hunyuan_local.backends.local import LocalBackend
from hunyuan_local.config import GroupOffload, RuntimeProfile, load_model_config, load_profile
from hunyuan_local.config import OomLadder as Limits
from hunyuan_local.errors import GpuMemoryError
from hunyuan_local.pipeline import loader
from hunyuan_local.schema import GenerationRequest, GenerationResult, Progress

GPU = load_profile("gpu-80gb")
CPU = load_profile("cpu")


def out_of(stage: str) -> GpuMemoryError:
    return GpuMemoryError(f"memory ran out in {stage}", stage=stage, peak_bytes=70 * 2**30)


def ladder(profile: RuntimeProfile = GPU, impossible: tuple[str, ...] = ()) -> OomLadder:
    return OomLadder(profile, lambda mode: "impossible" if mode.offload in impossible else None)


def offloads(found: OomLadder, stage: str) -> list[str]:
    """All offloads that are tried until it gives up."""
    taken = []
    with pytest.raises(GpuMemoryError):
        while True:
            taken.append(found.climb_down(out_of(stage), False).profile.offload)
    return taken


def test_the_tiles_shrink_first_where_the_decoding_fails() -> None:
    rung = ladder().climb_down(out_of("decode"), True)
    assert rung.shrink_tiles and rung.profile.offload == "none"


def test_tiles_do_not_help_the_denoising() -> None:
    assert not ladder().climb_down(out_of("denoise"), True).shrink_tiles


@pytest.mark.parametrize("stage", ["load", "encode", "denoise", "decode"])
def test_then_each_offload_is_tried_once(stage: str) -> None:
    assert offloads(ladder(), stage) == ["model", "group", "sequential"]


def test_what_the_machine_cannot_do_is_left_out() -> None:
    assert offloads(ladder(impossible=("model", "sequential")), "denoise") == ["group"]


def test_the_attempts_are_bounded() -> None:
    assert offloads(ladder(GPU.model_copy(update={"on_oom": Limits(attempts=2)})), "denoise") == ["model"]


def test_one_attempt_gives_up_at_once() -> None:
    assert offloads(ladder(GPU.model_copy(update={"on_oom": Limits(attempts=1)})), "denoise") == []


def test_precision_is_lowered_only_if_allowed() -> None:
    found = ladder(GPU.model_copy(update={"on_oom": Limits(attempts=9, quantization=("fp8", "nf4"))}))
    taken = []
    with pytest.raises(GpuMemoryError):
        while True:
            taken.append(found.climb_down(out_of("denoise"), False).profile.quantization)
    assert taken == [None, None, None, "fp8", "nf4"]


def test_layer_by_layer_is_not_compiled() -> None:
    found = ladder(GPU.model_copy(update={"compile": True}), impossible=("model", "group"))
    assert not found.climb_down(out_of("denoise"), False).profile.compile


def test_giving_up_names_stage_peak_attempts_and_remedy() -> None:
    found = ladder(GPU.model_copy(update={"on_oom": Limits(attempts=2)}))
    found.climb_down(out_of("denoise"), False)
    with pytest.raises(GpuMemoryError, match=r"in denoise; 70\.0 GiB .*tried before: .*offload model"):
        found.climb_down(out_of("denoise"), False)


# On the real pipeline.


class Shortage:
    """A device that runs out of memory at chosen calls of one function."""

    def __init__(self, call: Callable, at: set[int]):
        self.call, self.at, self.count = call, at, 0

    def __call__(self, *args: object, **kwargs: object) -> object:
        self.count += 1
        if self.count in self.at:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.call(*args, **kwargs)


@pytest.fixture
def request_() -> GenerationRequest:
    return GenerationRequest(
        prompt="a red circle moving right on a black background", width=144, height=80, num_frames=5,
        num_inference_steps=4, seed=7,
    )  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tiny: LocalBackend, tmp_path_factory: pytest.TempPathFactory) -> str:
    request = GenerationRequest(
        prompt="a red circle moving right on a black background", width=144, height=80, num_frames=5,
        num_inference_steps=4, seed=7,
    )  # fmt: skip
    result = tiny.generate(request, GenerationContext(tmp_path_factory.mktemp("whole") / "a.mp4"))
    return result.provenance["frames_sha256"]


@pytest.fixture
def short_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, set[int]], Shortage]:
    """Makes one stage run out of memory at the calls of these numbers."""

    def short_of(stage: str, at: set[int]) -> Shortage:
        owner, name = {
            "load": (loader, "_read"),
            "encode": (loader.LlamaModel, "forward"),
            "denoise": (loader.HunyuanVideoTransformer3DModel, "forward"),
            "decode": (loader.AutoencoderKLHunyuanVideo, "decode"),
        }[stage]
        shortage = Shortage(getattr(owner, name), at)
        monkeypatch.setattr(owner, name, lambda *args, **kwargs: shortage(*args, **kwargs))
        return shortage

    return short_of


def generate(request: GenerationRequest, folder: Path, **profile: object) -> tuple[GenerationResult, list[Progress]]:
    told: list[Progress] = []
    backend = LocalBackend(model="tiny", profile=CPU.model_copy(update={"prompt_cache": False} | profile))
    return backend.generate(request, GenerationContext(folder / "a.mp4", on_progress=told.append)), told


@pytest.mark.parametrize("stage", ["load", "encode", "denoise", "decode"])
def test_the_frames_are_those_of_an_undisturbed_run(
    request_: GenerationRequest, undisturbed: str, short_of: Callable, tmp_path: Path, stage: str
) -> None:
    short_of(stage, {2} if stage == "denoise" else {1})
    result, _ = generate(request_, tmp_path)
    assert result.provenance["frames_sha256"] == undisturbed
    assert [text for text in result.provenance["recoveries"] if f"in the stage {stage}" in text]


def test_no_step_is_made_twice(request_: GenerationRequest, short_of: Callable, tmp_path: Path) -> None:
    shortage = short_of("denoise", {3})
    result, _ = generate(request_, tmp_path)
    assert shortage.count == 5  # four steps, one of them begun twice
    assert "going on after step 2, saved in memory" in result.notes


def test_a_failure_of_the_decoding_repeats_no_step(
    request_: GenerationRequest, short_of: Callable, tmp_path: Path
) -> None:
    short_of("decode", {1})
    steps = short_of("denoise", set())
    generate(request_, tmp_path)
    assert steps.count == 4


def test_the_runtime_in_the_file_is_the_one_that_worked(
    request_: GenerationRequest, short_of: Callable, tmp_path: Path
) -> None:
    short_of("denoise", {1})
    result, _ = generate(request_, tmp_path)
    assert result.provenance["runtime"]["offload"] == "model"


def test_the_next_request_begins_where_the_ladder_ended(
    request_: GenerationRequest, short_of: Callable, tmp_path: Path
) -> None:
    short_of("denoise", {1})
    backend = LocalBackend(model="tiny", profile=CPU)
    backend.generate(request_, GenerationContext(tmp_path / "a.mp4"))
    loaded = backend.load()
    result = backend.generate(request_, GenerationContext(tmp_path / "b.mp4"))
    assert backend.load() is loaded and result.provenance["recoveries"] == []


def test_the_model_that_ran_out_of_memory_is_let_go_before_the_next_is_loaded(
    request_: GenerationRequest, short_of: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[bool] = []
    seen: list[weakref.ref] = []
    real = loader.load_model

    def load_model(*args: object, **kwargs: object) -> object:
        alive.extend(ref() is not None for ref in seen)
        model = real(*args, **kwargs)
        seen.append(weakref.ref(model.pipe.transformer))
        return model

    monkeypatch.setattr(loader, "load_model", load_model)
    short_of("denoise", {2})
    generate(request_, tmp_path)
    assert alive == [False]


def test_when_nothing_is_left_the_device_is_clean_and_no_file_is_kept(
    request_: GenerationRequest, short_of: Callable, tmp_path: Path
) -> None:
    short_of("denoise", set(range(100)))
    backend = LocalBackend(model="tiny", profile=CPU)
    with pytest.raises(GpuMemoryError, match="the plan expects --profile none to fit"):
        backend.generate(request_, GenerationContext(tmp_path / "a.mp4"))
    assert backend.device == "not loaded" and list(tmp_path.iterdir()) == []


def test_after_giving_up_the_backend_works_again(
    request_: GenerationRequest, undisturbed: str, short_of: Callable, tmp_path: Path
) -> None:
    short_of("denoise", {1, 2, 3, 4})
    backend = LocalBackend(model="tiny", profile=CPU)
    with pytest.raises(GpuMemoryError):
        backend.generate(request_, GenerationContext(tmp_path / "a.mp4"))
    result = backend.generate(request_, GenerationContext(tmp_path / "a.mp4"))
    assert result.provenance["frames_sha256"] == undisturbed


def test_smaller_tiles_decode_what_larger_ones_could_not(
    request_: GenerationRequest, short_of: Callable, tmp_path: Path
) -> None:
    short_of("decode", {1})
    loads = short_of("load", set())
    result, _ = generate(request_.replace(num_frames=17), tmp_path, vae_tiling=True)
    assert result.provenance["recoveries"][0].endswith("smaller tiles: whole width x whole height, 8 frames")
    assert loads.count == 4  # each component once: for other tiles nothing is loaded again


def test_the_next_video_of_that_size_begins_with_the_smaller_tiles(
    request_: GenerationRequest, short_of: Callable, tmp_path: Path
) -> None:
    short_of("decode", {1})
    backend = LocalBackend(model="tiny", profile=CPU)
    backend.generate(request_.replace(num_frames=17), GenerationContext(tmp_path / "a.mp4"))
    again = backend.generate(request_.replace(num_frames=17), GenerationContext(tmp_path / "b.mp4"))
    assert again.provenance["recoveries"] == []


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: out of memory"),  # page-locked memory
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
    ],
)
def test_memory_runs_out_in_other_words_too(
    request_: GenerationRequest, undisturbed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    real, errors = loader.HunyuanVideoTransformer3DModel.forward, [error]

    def forward(*args: object, **kwargs: object) -> object:
        if errors:
            raise errors.pop()
        return real(*args, **kwargs)

    monkeypatch.setattr(loader.HunyuanVideoTransformer3DModel, "forward", forward)
    result, _ = generate(request_, tmp_path)
    assert result.provenance["frames_sha256"] == undisturbed and result.provenance["recoveries"]


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    request_: GenerationRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(*args: object, **kwargs: object) -> object:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(loader.HunyuanVideoTransformer3DModel, "forward", forward)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        generate(request_, tmp_path)


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_rungs_that_the_loader_would_refuse_are_left_out(tmp_path: Path, quantization: str | None) -> None:
    config = load_model_config("tiny")
    if quantization is None:
        config = config.model_copy(update={"transformer_gguf": str(tmp_path / "t.gguf")})
    profile = CPU.model_copy(update={"quantization": quantization, "group": GroupOffload(to_disk=True)})
    backend = LocalBackend(config, profile)
    tried = offloads(OomLadder(profile, backend._why_impossible), "denoise")
    assert tried == (["model", "group"] if quantization is None else ["model", "sequential"])
