"""Attention kernels: how each is called, how a wrong one is found, and what happens to one that fails in a run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from test_attention import inputs, mask_free, step, toy
from torch.nn.attention import (
    SDPBackend,
    activate_flash_attention_impl,
    current_flash_attention_impl,
    register_flash_attention_impl,
    restore_flash_attention_impl,
)

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.config.kernels import BACKENDS, EXACT, FROM_HUB
from hunyuan_local.errors import ConfigError
from hunyuan_local.pipeline.attention import kernel_choice, kernels
from hunyuan_local.pipeline.attention.fallback import AttentionKernel, use_in_compiled_blocks, why_not_compiled
from hunyuan_local.pipeline.attention.kernel_choice import (
    choose_backend,
    fastest_first,
    fastest_ring_first,
    largest_error,
    probe,
    rivals,
)
from hunyuan_local.pipeline.attention.kernels import attend, order_of_torch
from hunyuan_local.pipeline.attention.mask_free import drop_padding
from hunyuan_local.pipeline.memory.device import nvidia_capability
from hunyuan_local.schema import GenerationRequest

Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def random(tokens: int = 40, heads: int = 2, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(1, tokens, heads, 16, generator=generator).to(dtype) for _ in range(3))


def formula(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attention in float64, [1, tokens, heads, head_dim]."""
    query, key, value = (x.transpose(1, 2).double() for x in (query, key, value))
    return ((query @ key.mT / query.shape[-1] ** 0.5).softmax(-1) @ value).transpose(1, 2)


# --- Calls ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_native_gives_the_librarys_values_to_the_last_bit(dtype: torch.dtype) -> None:
    query, key, value = random(dtype=dtype)
    expected = dispatch_attention_fn(query, key, value, backend=AttentionBackendName.NATIVE)
    assert torch.equal(attend("native", query, key, value), expected)


@pytest.mark.parametrize("name", ["native", "native_flash", "native_cudnn", "native_efficient"])
def test_kernels_of_torch_get_the_tensors_without_copies(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given, seen = random(), []

    def record(*tensors: torch.Tensor, attn_mask: torch.Tensor | None) -> torch.Tensor:
        seen.extend(tensors)
        return tensors[0]

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", record)
    found = attend(name, *given)
    assert [x.data_ptr() for x in (*seen, found)] == [x.data_ptr() for x in (*given, given[0])]
    assert [x.shape for x in seen] == [(1, 2, 40, 16)] * 3 and found.shape == (1, 40, 2, 16)


@pytest.mark.parametrize(
    ("capability", "first"),
    [
        ((8, 0), [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]),
        ((9, 0), [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]),
        ((12, 0), [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]),
    ],
)
def test_native_prefers_cudnn_from_hopper_on(
    capability: tuple[int, int], first: list[SDPBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert list(order_of_torch("native", CUDA)[:3]) == first
    assert order_of_torch("native", CPU) == ()


def test_the_numbers_of_amds_gpus_are_not_taken_for_compute_capabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (11, 0))
    assert nvidia_capability("cuda") == (11, 0)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert nvidia_capability("cuda") is None
    assert order_of_torch("native", CUDA) == ()


def test_torch_is_asked_for_the_kernels_in_that_order_only_during_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    enabled, orders = [], []

    def order(backends: list[SDPBackend], set_priority: bool = False) -> object:
        orders.append((backends, set_priority))
        return real(backends, set_priority=set_priority)

    real, computes = kernels.sdpa_kernel, torch.nn.functional.scaled_dot_product_attention
    cuda = torch.backends.cuda

    def record(*tensors: torch.Tensor, attn_mask: torch.Tensor | None) -> torch.Tensor:
        enabled.append((cuda.flash_sdp_enabled(), cuda.cudnn_sdp_enabled(), cuda.math_sdp_enabled()))
        return computes(*tensors, attn_mask=attn_mask)

    monkeypatch.setattr(kernels, "sdpa_kernel", order)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", record)
    attend("native_flash", *random())
    attend("native", *random())  # on a CPU, torch's default
    assert orders == [([SDPBackend.FLASH_ATTENTION], True)]
    assert enabled == [(True, False, False), (True, True, True)]


def test_flash_4_is_called_in_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    package, query = ModuleType("flash_attn.cute"), random()
    package.flash_attn_func = lambda q, k, v: (formula(q, k, v).float(), torch.zeros(1))
    monkeypatch.setitem(sys.modules, "flash_attn", ModuleType("flash_attn"))
    monkeypatch.setitem(sys.modules, "flash_attn.cute", package)
    torch.testing.assert_close(attend("flash_4", *query), formula(*query).float())


def test_sage_3_is_called_in_its_package_and_cannot_change_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    package, given = ModuleType("sageattn3"), random()

    def kernel(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, is_causal: bool) -> torch.Tensor:
        k -= k.mean(dim=2, keepdim=True)  # [B, heads, tokens, head_dim]; the softmax does not depend on it
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=is_causal)

    package.sageattn3_blackwell = kernel
    monkeypatch.setitem(sys.modules, "sageattn3", package)
    key = given[1].clone()
    torch.testing.assert_close(attend("sage_3", *given), formula(*given).float())
    assert torch.equal(given[1], key)


@pytest.fixture
def implementations() -> Iterator[list[str]]:
    """Stand-ins for the packages that torch can call for its flash kernel; the list says which were active in turn."""
    from torch.nn.attention import _registry

    active, before = [], dict(_registry._FLASH_ATTENTION_IMPLS)

    class Handle:
        def __init__(self, name: str):
            active.append(name)

        def remove(self) -> None:
            active.append("none")

    for name in ("FA3", "FA4"):
        register_flash_attention_impl(name, register_fn=lambda name=name: Handle(name))
    yield active
    restore_flash_attention_impl()
    _registry._FLASH_ATTENTION_IMPLS.update(before)


@pytest.mark.parametrize(("name", "implementation"), [("torch_flash_3", "FA3"), ("torch_flash_4", "FA4")])
def test_a_flash_package_is_active_in_torch_only_during_the_call(
    name: str, implementation: str, implementations: list[str]
) -> None:
    given = random()
    torch.testing.assert_close(attend(name, *given), formula(*given).float())
    assert implementations == [implementation, "none"]
    assert current_flash_attention_impl() is None


def test_a_flash_package_that_the_user_has_activated_stays_active(implementations: list[str]) -> None:
    activate_flash_attention_impl("FA3")
    attend("torch_flash_3", *random())
    assert implementations == ["FA3"]
    attend("torch_flash_4", *random())
    assert current_flash_attention_impl() == "FA3"


@pytest.mark.parametrize("before", [None, "FA3"])
def test_a_flash_package_that_is_not_installed_leaves_torch_as_it_was(
    before: str | None, implementations: list[str]
) -> None:
    register_flash_attention_impl("FA4", register_fn=lambda: sys.modules["no_such_package"])
    if before is not None:
        activate_flash_attention_impl(before)
    with pytest.raises(KeyError, match="no_such_package"):
        attend("torch_flash_4", *random())
    assert current_flash_attention_impl() == before


@pytest.mark.parametrize("missing", ["activate_flash_attention_impl", "restore_flash_attention_impl"])
def test_a_torch_that_cannot_call_a_flash_package_says_so(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.nn.attention, missing)
    with pytest.raises(RuntimeError, match="cannot call it; update torch"):
        attend("torch_flash_4", *random())


@pytest.mark.parametrize("name", sorted(set(BACKENDS) - {"native"}))
def test_only_native_takes_a_mask(name: str) -> None:
    kernel, given = AttentionKernel(name, 2), random()
    mask = torch.ones(1, 1, 1, 40, dtype=torch.bool)
    assert torch.equal(kernel(*given, mask), attend("native", *given, mask))
    assert kernel.name == name


# --- The choice ---


def only(*working: str) -> Callable[[str], str | None]:
    return lambda name: None if name in working else "not installed"


@pytest.mark.parametrize(
    ("capability", "working", "seconds", "chosen"),
    [
        ((8, 9), ("native", "native_cudnn"), {"native": 1.0, "native_cudnn": 0.9}, "native_cudnn"),
        ((8, 9), ("flash", "native", "native_cudnn"), {"flash": 1.0, "native_cudnn": 1.1}, "flash"),
        ((8, 9), ("flash", "native"), {}, "flash"),
        ((12, 0), ("native_cudnn", "flash", "native_flash"), {"native_cudnn": 1.0, "flash": 0.5}, "flash"),
        ((12, 1), ("native_cudnn", "native_flash"), {"native_cudnn": 1.0, "native_flash": 0.98}, "native_cudnn"),
        ((9, 0), ("native", "flash_4"), {"native": 1.0, "flash_4": 0.8}, "flash_4"),
        ((9, 0), ("flash_3", "native", "flash_4"), {}, "flash_3"),
        ((10, 0), ("flash_4", "native_cudnn"), {}, "flash_4"),
        ((10, 0), ("torch_flash_4", "native_cudnn"), {}, "torch_flash_4"),
        ((8, 0), ("native", "native_cudnn"), {}, "native"),
        (None, ("native",), {}, "native"),
    ],
)
def test_two_kernels_are_timed_only_where_their_order_is_disputed(
    capability: tuple[int, int] | None, working: tuple[str, ...], seconds: dict[str, float], chosen: str
) -> None:
    timed: list[str] = []

    def measure(name: str) -> float:
        timed.append(name)
        return seconds[name]

    order = fastest_first(capability)
    found = choose_backend("auto", order, only(*working), lambda name: rivals(name, capability), measure)
    assert (found, set(timed)) == (chosen, set(seconds))


def test_a_named_kernel_is_not_timed() -> None:
    found = choose_backend("native", ("native",), only("native", "native_cudnn"), lambda name: ("native_cudnn",))
    assert found == "native"


@pytest.mark.parametrize(
    ("capability", "order"),
    [
        (None, ("native", "native_flash")),
        ((8, 0), ("flash", "native_flash", "native_cudnn")),
        ((9, 0), ("flash_3", "torch_flash_3", "native_cudnn", "native_flash")),
    ],
)
def test_ring_tries_the_kernels_of_torch_by_name(capability: tuple[int, int] | None, order: tuple[str, ...]) -> None:
    assert fastest_ring_first(capability) == order


# --- Wrong values ---


def skips_keys_after(tokens: int) -> Attention:
    """A kernel that ignores all keys after the first ``tokens``, so that it is correct for shorter videos."""
    return lambda query, key, value: formula(query, key[:, :tokens], value[:, :tokens]).to(query.dtype)


def with_last_row(number: float) -> Attention:
    def kernel(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        found = formula(query, key, value).to(query.dtype)
        found[:, -1, -1] = number
        return found

    return kernel


@pytest.mark.parametrize("kernel", [skips_keys_after(500), with_last_row(0.0), with_last_row(float("nan"))])
def test_a_kernel_that_is_wrong_somewhere_is_found(kernel: Attention) -> None:
    given = random(tokens=512, dtype=torch.bfloat16)
    assert largest_error(formula(*given).to(torch.bfloat16), *given) < 0.005
    assert not largest_error(kernel(*given), *given) <= 0.02


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["native", "native_flash"])
def test_a_probe_at_the_length_of_a_run_finds_nothing_wrong_with_torchs_kernels(name: str, dtype: torch.dtype) -> None:
    assert probe(name, (1, 2000, 3, 32), CPU, dtype) is None


@pytest.mark.parametrize(("number", "off_by"), [(0.0, "100.0%"), (float("nan"), "nan%")])
def test_a_probe_at_the_length_of_a_run_reports_a_wrong_row(
    number: float, off_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(kernels._OWN, "flash_4", with_last_row(number))
    found = probe("flash_4", (1, 2000, 2, 16), CPU, torch.float32)
    assert found == f"wrong values at 2,000 tokens, off by {off_by} of their size"


@pytest.mark.parametrize(("name", "allowed"), [("flash_4", 0.02), ("sage_3", 0.5)])
def test_kernels_that_quantize_may_be_less_exact(name: str, allowed: float, monkeypatch: pytest.MonkeyPatch) -> None:
    for factor, problem in ((1 + 0.9 * allowed, False), (1 + 1.1 * allowed, True)):
        monkeypatch.setitem(kernels._OWN, name, lambda q, k, v, factor=factor: formula(q, k, v).to(q.dtype) * factor)
        assert (probe(name, (1, 64, 2, 16), CPU, torch.float32) is not None) is problem


def test_kernels_that_quantize_are_never_chosen_unasked() -> None:
    assert {"sage_3", "sage_qk_int8_pv_fp8_cuda_sm90"} <= set(BACKENDS)
    assert not any("sage" in name or name in FROM_HUB for name in EXACT)


# --- A kernel in a run ---


def broken(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("no engine for this size\nwith a second line")


def test_a_kernel_that_is_wrong_at_the_length_of_the_video_is_replaced_before_the_first_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(kernels._OWN, "flash_4", skips_keys_after(30))
    stock, ours = toy(), toy()
    kernel, notes = drop_padding(ours, "flash_4"), []
    with kernel.reporting(notes.append):
        step(ours, inputs(10))  # 12 image tokens and 10 of the text
        assert (kernel.name, notes) == ("flash_4", [])
        found = step(ours, inputs(30))
    torch.testing.assert_close(found, step(stock, inputs(30)), rtol=0, atol=2e-6)
    assert kernel.name == "native"
    assert notes == kernel.recoveries
    assert notes[0].startswith("attention kernel flash_4 failed (wrong values at 42 tokens, off by ")
    assert notes[0].endswith("); used native instead")


def test_a_length_is_probed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []

    def record(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        lengths.append(query.shape[1])
        return formula(query, key, value).to(query.dtype)

    monkeypatch.setitem(kernels._OWN, "flash_4", record)
    transformer = toy()
    drop_padding(transformer, "flash_4")
    for length in (10, 10, 20, 10):
        step(transformer, inputs(length))
    calls = 4  # one a block
    assert [lengths.count(22), lengths.count(32)] == [3 * calls + 1, calls + 1]


def test_a_kernel_that_fails_in_a_call_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kernels._OWN, "flash_4", broken)
    kernel, given, notes = AttentionKernel("flash_4", 2), random(), []
    with kernel.reporting(notes.append):
        assert torch.equal(kernel(*given), attend("native", *given))
    assert notes == ["attention kernel flash_4 failed (no engine for this size); used native instead"]
    again: list[str] = []
    with kernel.reporting(again.append):  # the next video uses it too
        kernel(*given)
    assert again == notes == kernel.recoveries


def test_native_has_fallbacks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    real = kernels._by_torch

    def fails_for_native(name: str, *given: torch.Tensor | None) -> torch.Tensor:
        return broken(*given[:3]) if name == "native" else real(name, *given)

    monkeypatch.setattr(kernels, "_by_torch", fails_for_native)
    kernel, given = AttentionKernel("native", 2), random()
    torch.testing.assert_close(kernel(*given), formula(*given).float())
    assert kernel.name == "native_flash"


def test_the_first_error_is_raised_if_every_kernel_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kernels._OWN, "flash_4", broken)
    monkeypatch.setattr(kernels, "_by_torch", lambda *given: 1 / 0)
    kernel = AttentionKernel("flash_4", 2)
    with pytest.raises(RuntimeError, match="no engine for this size"):
        kernel(*random())
    assert (kernel.name, kernel.recoveries) == ("flash_4", [])


def test_no_kernel_that_works_at_the_length_is_an_error_with_each_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kernels._OWN, "flash_4", broken)
    monkeypatch.setattr(kernels, "_by_torch", lambda *given: torch.zeros_like(given[1]))
    with pytest.raises(ConfigError) as caught:
        AttentionKernel("flash_4", 2).check(50, 16, CPU, torch.float32)
    text = str(caught.value)
    assert text.startswith("attention_backend='flash_4': no kernel works for this video (flash_4: no engine for this s")
    assert "native: wrong values at 50 tokens, off by 100.0% of their size; native_flash: wrong" in text
    assert text.endswith("use a smaller size or fewer frames, or update torch and the driver")


@pytest.mark.parametrize("call", ["in a step", "in a probe"])
def test_a_shortage_of_memory_replaces_no_kernel(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setitem(kernels._OWN, "flash_4", run_out)
    kernel = AttentionKernel("flash_4", 2)
    with pytest.raises(torch.OutOfMemoryError):
        if call == "in a step":
            kernel(*random())
        else:
            kernel.check(50, 16, CPU, torch.float32)
    assert kernel.name == "flash_4"


def test_processes_that_run_one_model_replace_a_kernel_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kernels._OWN, "flash_4", lambda q, k, v: formula(q, k, v).to(q.dtype))
    asked: list[str | None] = []

    def agree(problem: str | None) -> str | None:  # another process finds its kernel wrong, this one does not
        asked.append(problem)
        return "wrong values there" if len(asked) == 1 else problem

    kernel = AttentionKernel("native", 2)
    kernel.share("flash_4", heads=1, parts=1, fallbacks=("native",), agree=agree)
    kernel.check(50, 16, CPU, torch.float32)
    assert kernel.recoveries == ["attention kernel flash_4 failed (wrong values there); used native instead"]
    assert asked == [None, None]


def test_a_video_lists_the_kernel_that_was_replaced_under_its_recoveries(
    tiny: LocalBackend, small_request: GenerationRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tiny.generate(small_request, GenerationContext(tmp_path / "expected.mp4"))
    kernel = tiny.load().kernel
    monkeypatch.setitem(kernels._OWN, "flash_4", broken)
    monkeypatch.setattr(kernel, "name", "flash_4")
    monkeypatch.setattr(kernel, "recoveries", [])
    found = tiny.generate(small_request, GenerationContext(tmp_path / "found.mp4"))
    text = "attention kernel flash_4 failed (no engine for this size); used native instead"
    assert found.provenance["recoveries"] == [text]
    assert text in found.provenance["notes"]
    assert found.provenance["frames_sha256"] == expected.provenance["frames_sha256"]


# --- Compiled blocks ---


def test_a_compiled_forward_pass_has_torchs_kernels_in_the_order_of_the_kernel() -> None:
    cuda, seen = torch.backends.cuda, []
    transformer = toy()
    kernel = drop_padding(transformer, "native_flash")
    use_in_compiled_blocks(transformer, kernel)
    handle = transformer.proj_out.register_forward_hook(
        lambda *call: seen.append((cuda.flash_sdp_enabled(), cuda.math_sdp_enabled()))
    )
    step(transformer, inputs(10))
    handle.remove()
    assert seen == [(True, False)] and cuda.math_sdp_enabled()
    processor = transformer.transformer_blocks[0].attn.processor
    assert processor._attention_backend == AttentionBackendName.NATIVE  # without diffusers' copies

    transformer.proj_out.register_forward_hook(lambda *call: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        step(transformer, inputs(10))
    assert cuda.math_sdp_enabled()


@pytest.mark.parametrize("name", BACKENDS)
def test_compiled_blocks_call_only_kernels_that_diffusers_or_torch_has(name: str) -> None:
    assert (why_not_compiled(name) is None) is (name not in {"flash_4", "torch_flash_3", "torch_flash_4", "sage_3"})


def test_mask_free_attention_of_a_kernel_of_our_own_equals_the_librarys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kernels._OWN, "flash_4", lambda q, k, v: formula(q, k, v).to(q.dtype))
    stock = toy()
    found = step(mask_free(stock, "flash_4"), inputs(30))
    torch.testing.assert_close(found, step(stock, inputs(30)), rtol=0, atol=2e-6)


def test_timing_a_kernel_on_a_full_device_leaves_the_published_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out(*given: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(kernel_choice, "attend", run_out)
    monkeypatch.setattr(kernel_choice, "_TIMED_TOKENS", 8)
    assert kernel_choice.measured_seconds("native", 2, 16, CPU, torch.float32) == float("inf")
    found = choose_backend(
        "auto", ("native",), only("native", "native_cudnn"), lambda name: ("native_cudnn",), lambda name: float("inf")
    )
    assert found == "native"
