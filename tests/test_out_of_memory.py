"""Out of memory during a run: what is tried next, from which step, and what the result reports."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
from short_memory import short_of

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.backends.local.out_of_memory import OutOfMemoryFallback, why_impossible
from hunyuan_local.config import GroupOffload, OutOfMemoryConfig, RuntimeProfile, load_model_config, load_profile
from hunyuan_local.config.profiles import ComponentPlacement
from hunyuan_local.errors import GpuMemoryError
from hunyuan_local.pipeline.loading import loader
from hunyuan_local.pipeline.memory.device import translated_shortage
from hunyuan_local.schema import GenerationRequest, GenerationResult

GPU = load_profile("gpu-80gb")
CPU = load_profile("cpu")
REQUEST = GenerationRequest(
    prompt="a red circle moving right on a black background", width=144, height=80, num_frames=5,
    num_inference_steps=4, seed=7,
)  # fmt: skip


def out_of(stage: str) -> GpuMemoryError:
    return GpuMemoryError(f"memory ran out in {stage}", stage=stage, peak_bytes=70 * 2**30)


def fallback(profile: RuntimeProfile = GPU, impossible: tuple[str, ...] = ()) -> OutOfMemoryFallback:
    return OutOfMemoryFallback(profile, lambda mode: "impossible" if mode.offload in impossible else None)


def offloads(found: OutOfMemoryFallback, stage: str) -> list[str]:
    """All kinds of offload that are tried until it gives up."""
    taken = []
    with pytest.raises(GpuMemoryError):
        while True:
            taken.append(found.next_retry(out_of(stage), False).profile.offload)
    return taken


def test_the_tiles_shrink_first_where_the_decoding_fails() -> None:
    retry = fallback().next_retry(out_of("decode"), True)
    assert retry.shrink_tiles and retry.profile.offload == "none"


def test_tiles_do_not_help_the_denoising() -> None:
    assert not fallback().next_retry(out_of("denoise"), True).shrink_tiles


@pytest.mark.parametrize("stage", ["load", "encode", "denoise", "decode"])
def test_then_each_offload_is_tried_once(stage: str) -> None:
    assert offloads(fallback(), stage) == ["model", "group", "sequential"]


def test_text_encoders_that_stay_on_the_device_leave_it_first() -> None:
    placement = ComponentPlacement(text_encoder="device", text_encoder_2="device", vae="device")
    found = fallback(GPU.model_copy(update={"placement": placement}))
    retry = found.next_retry(out_of("denoise"), False)
    assert (retry.profile.offload, retry.profile.residence("text_encoder")) == ("none", "visit")
    assert retry.profile.placement.vae == "device"  # nothing else of the user's placement is changed
    assert "the text encoders on the device only while they encode" in retry.text
    assert offloads(found, "denoise") == ["model", "group", "sequential"]


def test_what_the_machine_cannot_do_is_left_out() -> None:
    assert offloads(fallback(impossible=("model", "sequential")), "denoise") == ["group"]


def test_the_attempts_are_bounded() -> None:
    assert offloads(fallback(GPU.model_copy(update={"on_oom": OutOfMemoryConfig(attempts=2)})), "denoise") == ["model"]


def test_one_attempt_gives_up_at_once() -> None:
    assert offloads(fallback(GPU.model_copy(update={"on_oom": OutOfMemoryConfig(attempts=1)})), "denoise") == []


def test_precision_is_lowered_only_if_allowed() -> None:
    found = fallback(GPU.model_copy(update={"on_oom": OutOfMemoryConfig(attempts=9, quantization=("fp8", "nf4"))}))
    taken = []
    with pytest.raises(GpuMemoryError):
        while True:
            taken.append(found.next_retry(out_of("denoise"), False).profile.quantization)
    assert taken == [None, None, None, "fp8", "nf4"]


def test_layer_by_layer_is_not_compiled() -> None:
    found = fallback(GPU.model_copy(update={"compile": True}), impossible=("model", "group"))
    assert not found.next_retry(out_of("denoise"), False).profile.compile


def test_giving_up_names_stage_peak_attempts_and_remedy() -> None:
    found = fallback(GPU.model_copy(update={"on_oom": OutOfMemoryConfig(attempts=2)}))
    found.next_retry(out_of("denoise"), False)
    with pytest.raises(GpuMemoryError, match=r"in denoise; peak allocation 70\.0 GiB; already tried: .*offload model"):
        found.next_retry(out_of("denoise"), False)


# What counts as running out of memory.


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory"),  # page-locked memory
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("CUDA driver error: out of memory"),  # expandable segments
        RuntimeError("NCCL error: unhandled cuda error. Last error: Cuda failure 2 'out of memory'"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
    ],
)
def test_memory_runs_out_in_other_words_too(error: Exception) -> None:
    with pytest.raises(GpuMemoryError, match="in the stage denoise") as caught, translated_shortage("denoise"):
        raise error
    assert caught.value.stage == "denoise"


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: an illegal memory access was encountered",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "Default process group has not been initialized",
    ],
)
def test_other_errors_are_not_taken_for_a_lack_of_memory(text: str) -> None:
    with pytest.raises(RuntimeError, match=text.split(" when")[0]), translated_shortage("denoise"):
        raise RuntimeError(text)


# On the real pipeline.


def new_backend(**profile: object) -> LocalBackend:
    return LocalBackend(model="tiny", profile=CPU.model_copy(update={"prompt_cache": False} | profile))


@pytest.fixture(scope="module")
def undisturbed(starts_process: None, tiny: LocalBackend, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The frames of a run with enough memory."""
    result = tiny.generate(REQUEST, GenerationContext(tmp_path_factory.mktemp("whole") / "a.mp4"))
    return result.provenance["frames_sha256"]


def test_the_frames_are_those_of_an_undisturbed_run_after_loading_and_encoding(
    undisturbed: str, tmp_path: Path
) -> None:
    with short_of(load={1}, encode={1}):
        result = new_backend().generate(REQUEST, GenerationContext(tmp_path / "a.mp4"))
    assert result.provenance["frames_sha256"] == undisturbed
    first, second = result.provenance["recoveries"]
    assert "in the load stage" in first and "in the encode stage" in second


@dataclass(frozen=True)
class Recovered:
    """A run that ran out of memory in its third step, and the next run of the same backend."""

    result: GenerationResult
    following: GenerationResult
    steps: int
    loads: int
    were_alive: list[bool]


@pytest.fixture(scope="module")
def recovered(starts_process: None, tmp_path_factory: pytest.TempPathFactory) -> Recovered:
    folder, backend, real = tmp_path_factory.mktemp("recovered"), new_backend(), loader.load_model
    were_alive: list[bool] = []
    seen: list[weakref.ref] = []

    def load_model(*args: object, **kwargs: object) -> object:
        were_alive.extend(ref() is not None for ref in seen)
        model = real(*args, **kwargs)
        seen.append(weakref.ref(model.pipe.transformer))
        return model

    with pytest.MonkeyPatch.context() as patch, short_of(denoise={3}) as shortages:
        patch.setattr(loader, "load_model", load_model)
        result = backend.generate(REQUEST, GenerationContext(folder / "a.mp4"))
        steps = shortages["denoise"].count
        following = backend.generate(REQUEST, GenerationContext(folder / "b.mp4"))
    return Recovered(result, following, steps, len(seen), were_alive)


def test_the_frames_are_those_of_an_undisturbed_run_after_denoising(recovered: Recovered, undisturbed: str) -> None:
    assert recovered.result.provenance["frames_sha256"] == undisturbed
    assert [text for text in recovered.result.provenance["recoveries"] if "in the denoise stage" in text]


def test_so_they_are_in_bfloat16(starts_process: None, tmp_path: Path) -> None:
    dtypes = CPU.dtypes.model_copy(update={"transformer": "bfloat16"})
    request = REQUEST.replace(num_inference_steps=6)  # whose timesteps bfloat16 cannot represent
    undisturbed = new_backend(dtypes=dtypes).generate(request, GenerationContext(tmp_path / "a.mp4"))
    with short_of(denoise={3}):
        result = new_backend(dtypes=dtypes).generate(request, GenerationContext(tmp_path / "b.mp4"))
    assert result.provenance["recoveries"]
    assert result.provenance["frames_sha256"] == undisturbed.provenance["frames_sha256"]


def test_no_step_is_made_twice(recovered: Recovered) -> None:
    assert recovered.steps == 5  # four steps, one of them started twice
    assert "resuming after step 2, saved in memory" in recovered.result.notes


def test_the_runtime_in_the_file_is_the_one_that_worked(recovered: Recovered) -> None:
    assert recovered.result.provenance["runtime"]["offload"] == "model"


def test_the_next_request_begins_where_the_ladder_ended(recovered: Recovered) -> None:
    assert recovered.loads == 2  # before and after memory ran out; none for the next request
    assert recovered.following.provenance["recoveries"] == []
    assert recovered.following.provenance["runtime"]["offload"] == "model"


def test_the_model_that_ran_out_of_memory_is_let_go_before_the_next_is_loaded(recovered: Recovered) -> None:
    assert recovered.were_alive == [False]


def test_a_failure_of_the_decoding_repeats_no_step(undisturbed: str, tmp_path: Path) -> None:
    with short_of(decode={1}, denoise=set()) as shortages:
        result = new_backend().generate(REQUEST, GenerationContext(tmp_path / "a.mp4"))
    assert shortages["denoise"].count == 4
    assert result.provenance["frames_sha256"] == undisturbed
    assert [text for text in result.provenance["recoveries"] if "in the decode stage" in text]


def test_after_giving_up_the_device_is_clean_no_file_is_kept_and_the_backend_works_again(
    undisturbed: str, tmp_path: Path
) -> None:
    backend = new_backend(on_oom=OutOfMemoryConfig(attempts=2))
    with short_of(denoise={1, 2}):
        with pytest.raises(GpuMemoryError, match="the plan expects --profile none to fit"):
            backend.generate(REQUEST, GenerationContext(tmp_path / "a.mp4"))
        assert backend.device == "not loaded" and list(tmp_path.iterdir()) == []
        result = backend.generate(REQUEST, GenerationContext(tmp_path / "a.mp4"))
    assert result.provenance["frames_sha256"] == undisturbed


def test_smaller_tiles_decode_what_larger_ones_could_not_and_the_next_video_begins_with_them(
    starts_process: None, tmp_path: Path
) -> None:
    backend, request = new_backend(vae_tiling=True), REQUEST.replace(num_frames=17, num_inference_steps=2)
    with short_of(decode={1}, load=set()) as shortages:
        result = backend.generate(request, GenerationContext(tmp_path / "a.mp4"))
        again = backend.generate(request, GenerationContext(tmp_path / "b.mp4"))
    assert result.provenance["recoveries"][0].endswith("smaller tiles: whole width x whole height, 8 frames")
    assert shortages["load"].count == 4  # each component once: a change of tiles reloads nothing
    assert again.provenance["recoveries"] == []


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_rungs_that_the_loader_would_refuse_are_left_out(tmp_path: Path, quantization: str | None) -> None:
    config = load_model_config("tiny")
    if quantization is None:
        config = config.model_copy(update={"transformer_gguf": str(tmp_path / "t.gguf")})
    profile = CPU.model_copy(update={"quantization": quantization, "group": GroupOffload(to_disk=True)})
    tried = offloads(OutOfMemoryFallback(profile, partial(why_impossible, config)), "denoise")
    assert tried == (["model", "group"] if quantization is None else ["model", "sequential"])
