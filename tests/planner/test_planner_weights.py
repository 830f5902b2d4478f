"""Storage of weights: bytes compared with the real classes, and their place under each kind of offload."""

from __future__ import annotations

import pytest
import torch
from live_tensors import LARGE, autoencoder, live_peak, tiny_config, transformer
from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel

from hunyuan_local.planner.architecture import Clip, Llama, Transformer
from hunyuan_local.planner.encoding import trace_clip, trace_llama
from hunyuan_local.planner.quantization import FP8_DYNAMIC, FP8_STORAGE, FULL, INT8_WEIGHT_ONLY, NF4
from hunyuan_local.planner.setup import Setup
from hunyuan_local.planner.weights import store

TRANSFORMER = Transformer.model_validate(LARGE["transformer"])


def test_full_precision_is_two_bytes_a_parameter() -> None:
    assert store(TRANSFORMER, "bfloat16").total == 2 * TRANSFORMER.parameters


def test_float8_storage_is_what_layerwise_casting_leaves() -> None:
    model = transformer(tiny_config("transformer"), torch.bfloat16)
    model.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16)
    real = sum(p.numel() * p.element_size() for p in model.parameters())
    assert store(Transformer.model_validate(tiny_config("transformer")), "bfloat16", FP8_STORAGE).total == real


@pytest.mark.parametrize(("method", "gib"), [(INT8_WEIGHT_ONLY, 11.96), (NF4, 6.72), (FP8_DYNAMIC, 11.94)])
def test_sizes_of_the_quantised_13_b_transformer(method: object, gib: float) -> None:
    assert store(TRANSFORMER, "bfloat16", method).total / 2**30 == pytest.approx(gib, abs=0.01)


def test_the_blocks_are_those_of_the_module_lists() -> None:
    assert len(store(TRANSFORMER, "bfloat16").blocks) == 60


def test_blocks_and_the_rest_are_everything() -> None:
    stored = store(TRANSFORMER, "bfloat16")
    assert sum(stored.blocks) + stored.rest == stored.total


def test_streaming_holds_two_blocks_and_the_rest() -> None:
    stored = store(TRANSFORMER, "bfloat16")
    assert stored.streamed_peak(2) == 2 * max(stored.blocks) + stored.rest


def test_the_package_has_three_blocks_on_the_gpu() -> None:
    stored = store(TRANSFORMER, "bfloat16")
    assert stored.streamed_peak(Setup().streamed_blocks) == 3 * max(stored.blocks) + stored.rest


def test_page_locked_copies_of_large_tensors_take_their_own_size() -> None:
    stored = store(TRANSFORMER, "bfloat16", FULL)
    assert 1 < stored.pinned / stored.total < 1.001


@pytest.mark.parametrize("tokens", [270, 351])
def test_encoding_peaks_like_the_real_llama(tokens: int) -> None:
    config = tiny_config("text_encoder") | {"num_hidden_layers": 12}
    model = LlamaModel(LlamaConfig.from_dict(config)).eval()
    mask = torch.ones(1, tokens, dtype=torch.long)
    call = lambda: model(input_ids=torch.zeros_like(mask), attention_mask=mask, output_hidden_states=True)  # noqa: E731
    assert trace_llama(Llama.model_validate(config), tokens, 4).peak_bytes == pytest.approx(
        live_peak(model, call), rel=0.05
    )


def test_encoding_peaks_like_the_real_clip() -> None:
    config = tiny_config("text_encoder_2")
    model = CLIPTextModel(CLIPTextConfig.from_dict(config)).eval()
    peak = live_peak(model, lambda: model(torch.zeros(1, 77, dtype=torch.long)))
    assert trace_clip(Clip.model_validate(config), 4).peak_bytes == pytest.approx(peak, rel=0.05)


def test_the_real_autoencoder_keeps_its_precision() -> None:
    assert {p.dtype for p in autoencoder(LARGE["vae"], torch.float16).parameters()} == {torch.float16}
