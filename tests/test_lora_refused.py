"""LoRA files with unsupported keys, or for another model, are refused by key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel
from safetensors.torch import save_file

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.config import LoraConfig, load_model_config
from hunyuan_local.errors import ModelLoadError
from hunyuan_local.pipeline.loading.lora_loader import LoadedLora, add_loras
from hunyuan_local.planner.architecture import Transformer as Described
from hunyuan_local.schema import GenerationRequest
from hunyuan_local.weights.lora_fit import Layer, check_fit
from hunyuan_local.weights.lora_header import read_header
from hunyuan_local.weights.lora_values import check_values

Transformer = HunyuanVideoTransformer3DModel
SETTINGS = json.loads((Path(load_model_config("tiny").source) / "transformer" / "config.json").read_text())
SMALL = Described.model_validate(SETTINGS | {"num_layers": 2, "num_single_layers": 3})
Q, K = "transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_k"
FUSED = "diffusion_model.double_blocks.0.img_attn.qkv"
KOHYA = "lora_unet_double_blocks_0_img_attn_qkv"
TE = "lora_te1_text_model_encoder_layers_0_mlp_fc1"


@pytest.fixture(scope="module")
def transformer() -> Transformer:
    """Two double and three single blocks of the built-in model's width, with random weights; read-only."""
    return Transformer.from_config(SETTINGS | {"num_layers": 2, "num_single_layers": 3}).requires_grad_(False)


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(*shape)


def lora(layer: str, rows: int = 128) -> dict[str, torch.Tensor]:
    return {f"{layer}.lora_A.weight": ones(4, 128), f"{layer}.lora_B.weight": ones(rows, 4)}


def loha(layer: str) -> dict[str, torch.Tensor]:
    return {f"{layer}.hada_{name}": ones(*shape) for name, shape in
            {"w1_a": (384, 4), "w1_b": (4, 128), "w2_a": (384, 4), "w2_b": (4, 128)}.items()}  # fmt: skip


def without(tensors: dict[str, torch.Tensor], end: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in tensors.items() if not key.endswith(end)}


PLAIN = lora(f"transformer.{Q}")
# By name: a file's content, and what its error must contain.
REFUSED: dict[str, tuple[dict[str, torch.Tensor], tuple[str, ...]]] = {
    # Kinds.
    "dora": ({**PLAIN, f"transformer.{Q}.dora_scale": ones(128, 1)}, (f"{Q}.dora_scale", "DoRA")),
    "dora of peft": ({**PLAIN, f"transformer.{Q}.lora_magnitude_vector.weight": ones(128)}, ("magnitude", "DoRA")),
    "oft": ({**PLAIN, f"transformer.{K}.oft_blocks": ones(2, 64, 64)}, (f"{K}.oft_blocks", "OFT")),
    "oft of kohya alone": ({f"{KOHYA}.oft_diag": ones(2, 64, 64), f"{KOHYA}.alpha": ones(1)}, ("oft_diag", "OFT")),
    "ia3": ({**PLAIN, f"base_model.model.{K}.ia3_l": ones(128)}, (f"{K}.ia3_l", "IA3")),
    "glora": ({**PLAIN, f"{KOHYA}.a1.weight": ones(4, 128)}, ("a1.weight", "GLoRA")),
    "vera": ({**PLAIN, f"base_model.model.{K}.vera_lambda_b": ones(128)}, ("vera_lambda_b", "VeRA")),
    "tucker": ({**loha(FUSED), f"{FUSED}.hada_t1": ones(4, 4, 1, 1)}, ("hada_t1", "Tucker")),
    "checkpoint": ({f"{FUSED}.weight": ones(384, 128)}, (f"{FUSED}.weight", "whole checkpoint")),
    "fp8 checkpoint": ({**PLAIN, f"{FUSED}.scale_weight": ones(1)}, ("scale_weight", "whole checkpoint")),
    "unknown": ({**PLAIN, f"transformer.{K}.brand_new": ones(1)}, (f"{K}.brand_new", "'brand_new'")),
    "bias of lora_A": ({**PLAIN, f"transformer.{Q}.lora_A.bias": ones(4)}, ("lora_A.bias",)),
    # Two sources.
    "fused and apart": ({**lora(f"transformer.{K}"), **lora(FUSED, 384)}, (FUSED, K, "both change")),
    "two spellings": ({**lora(FUSED, 384), **lora(KOHYA, 384)}, (KOHYA, FUSED, "both change")),
    "two prefixes": ({**PLAIN, **lora(Q)}, (f"transformer.{Q}.lora_A.weight", f" {Q}.lora_A.weight")),
    "two words": ({**PLAIN, f"transformer.{Q}.lora_down.weight": ones(4, 128)}, ("lora_A.weight", "lora_down.weight")),
    "two forms": ({**lora(FUSED, 384), **loha(FUSED)}, ("lora_A.weight", "hada_w1_a", "twice")),
    "lora and diff": ({**lora(FUSED, 384), f"{FUSED}.diff": ones(384, 128)}, (f"{FUSED}.diff", "twice")),
    "two biases": ({**PLAIN, f"transformer.{Q}.lora_B.bias": ones(128), f"transformer.{Q}.diff_b": ones(128)},
                   ("diff_b", "lora_B.bias", f"both change {Q}")),
    "two adapters": ({f"{Q}.lora_A.one.weight": ones(4, 128), f"{Q}.lora_B.two.weight": ones(128, 4)},
                     ("one", "two", "different adapters")),
    "both halves twice": ({f"{FUSED}.lokr_w1": ones(4, 4), f"{FUSED}.lokr_w1_a": ones(4, 2),
                           f"{FUSED}.lokr_w1_b": ones(2, 4), f"{FUSED}.lokr_w2": ones(96, 32)}, ("lokr_w1_a",)),
    # Parts that are missing.
    "only a mid": ({**lora(f"transformer.{K}"), f"{FUSED}.lora_mid.weight": ones(4, 4)}, ("lora_mid",)),
    "only an alpha": ({**PLAIN, f"{KOHYA}.alpha": ones(1)}, (f"{KOHYA}.alpha", "without")),
    "only a bias": ({f"transformer.{Q}.lora_B.bias": ones(128)}, ("lora_B.bias", "without")),
    "half a loha": (without(loha(FUSED), "w2_b"), ("hada_w", "half")),
    "half a lokr": ({f"{FUSED}.lokr_w1": ones(4, 4)}, ("lokr_w1", "half")),
    "half a factor": ({f"{FUSED}.lokr_w1": ones(4, 4), f"{FUSED}.lokr_w2_a": ones(96, 2)}, ("lokr_w2_a", "half")),
    # Numbers.
    "alpha of four": ({**PLAIN, f"transformer.{Q}.alpha": ones(4)}, (f"{Q}.alpha", "[4]", "one number")),
    "alpha of none": ({**PLAIN, f"transformer.{Q}.alpha": torch.empty(0)}, (f"{Q}.alpha", "[0]", "one number")),
    "alpha infinite": ({**PLAIN, f"transformer.{Q}.alpha": torch.tensor(torch.inf)}, (f"{Q}.alpha", "infinite")),
    "scalar": ({f"{Q}.lora_A.weight": torch.tensor(1.0), f"{Q}.lora_B.weight": ones(128, 1)}, ("lora_A", "[]")),
    "rank 0": ({f"{Q}.lora_A.weight": torch.empty(0, 128), f"{Q}.lora_B.weight": torch.empty(128, 0)}, ("[0, 128]",)),
    "integers": ({f"{Q}.lora_A.weight": ones(4, 128).to(torch.int8), f"{Q}.lora_B.weight": ones(128, 4)}, ("int8",)),
    "nan in a loha": ({**loha(FUSED), f"{FUSED}.hada_w1_b": torch.full((4, 128), torch.nan)}, ("hada_w1_b", "NaN")),
    # Shapes.
    "rank of the mid": ({**lora(FUSED, 384), f"{FUSED}.lora_mid.weight": ones(3, 3)}, ("lora_mid", "[3, 3]", "[4, 4]")),
    "loha of another model": ({**loha(FUSED), f"{FUSED}.hada_w2_b": ones(4, 64)}, ("hada_w2_b", "[4, 64]", "[4, 128]")),
    "lokr of another model": ({f"{FUSED}.lokr_w1": ones(4, 4), f"{FUSED}.lokr_w2": ones(96, 16)},
                              ("lokr_w1", "[384, 64]", "[384, 128]")),
    "two ranks": ({f"{FUSED}.lokr_w1_a": ones(4, 1), f"{FUSED}.lokr_w1_b": ones(1, 4),
                   f"{FUSED}.lokr_w2_a": ones(96, 2), f"{FUSED}.lokr_w2_b": ones(2, 32)},
                  ("lokr_w1_b", "lokr_w2_b", "different ranks")),
    "diff of another model": ({f"{FUSED}.diff": ones(384, 64)}, (f"{FUSED}.diff", "[384, 64]")),
    "factors of a norm": (lora("transformer_blocks.0.attn.norm_q"), ("norm_q.lora_A", "a vector")),
    "bias of a norm": ({"transformer_blocks.0.attn.norm_q.diff_b": ones(32)}, ("norm_q.diff_b", "has none")),
    "33 channels": ({"diffusion_model.img_in.proj.lora_A.weight": ones(4, 33, 1, 2, 2),
                     "diffusion_model.img_in.proj.lora_B.weight": ones(128, 4, 1, 1, 1)},
                    ("img_in.proj.lora_A.weight", "[4, 33, 1, 2, 2]", "image-to-video")),
    # Layers.
    "more blocks": ({**PLAIN, **lora("diffusion_model.double_blocks.7.img_attn.qkv", 384)},
                    ("double_blocks.7", "no layer")),
    "another transformer": ({**PLAIN, **lora("transformer.blocks.0.attn1.to_q")}, ("blocks.0.attn1", "another model")),
    "text encoders alone": (lora(TE), (TE, "none of the 2 keys")),
    "a text encoder's alpha": ({f"{TE}.alpha": ones(1)}, (TE, "none of the 1 keys")),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_added_in_part_or_wrongly_is_refused_by_its_key(
    name: str, transformer: Transformer, tmp_path: Path
) -> None:
    tensors, words = REFUSED[name]
    path = tmp_path / "a.safetensors"
    save_file(tensors, path)
    before = {name: value.clone() for name, value in transformer.state_dict().items()}
    with pytest.raises(ModelLoadError) as caught:
        add_loras(transformer, [LoraConfig(path=str(path))])
    assert str(caught.value).startswith(f"lora={str(path)!r}: ")
    assert [word for word in words if word not in str(caught.value)] == []
    torch.testing.assert_close(transformer.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", REFUSED)
def test_all_of_it_is_refused_without_the_model(name: str, tmp_path: Path) -> None:
    tensors, words = REFUSED[name]
    config = LoraConfig(path=str(tmp_path / "a.safetensors"))
    save_file(tensors, tmp_path / "a.safetensors")
    layers = {name: Layer(*shape) for name, shape in SMALL.shapes().items()}
    with pytest.raises(ModelLoadError) as caught:
        header = read_header(config)
        check_values(config, header, check_fit(config, header, layers))
    assert [word for word in words if word not in str(caught.value)] == []


FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2, torch.float8_e4m3fn)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("value", [torch.nan, -torch.inf, 0.0, -1.5, 448.0])
def test_only_nan_and_infinite_values_are_refused_in_every_type(
    value: float, dtype: torch.dtype, tmp_path: Path
) -> None:
    config = LoraConfig(path=str(tmp_path / "a.safetensors"))
    down = torch.ones(4, 128)
    down[3, 127] = value
    tensors = {f"transformer.{Q}.lora_A.weight": down.to(dtype), f"transformer.{Q}.lora_B.weight": ones(128, 4)}
    save_file(tensors, tmp_path / "a.safetensors")
    header = read_header(config)
    fit = check_fit(config, header, {name: Layer(*shape) for name, shape in SMALL.shapes().items()})
    if torch.isfinite(down.to(dtype).float()).all():
        check_values(config, header, fit)
    else:
        with pytest.raises(ModelLoadError, match=r"lora_A.weight has values that are NaN or infinite"):
            check_values(config, header, fit)


def test_a_lora_of_another_model_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({f"{KOHYA}.lora_down.weight": ones(4, 3072), f"{KOHYA}.lora_up.weight": ones(9216, 4)}, path)
    backend = LocalBackend("tiny", "cpu", lora=[LoraConfig(path=str(path))])
    with pytest.raises(ModelLoadError, match=r"^lora=.*lora_down.weight has the shape \[4, 3072\].*needs \[4, 128\]"):
        backend.generate(GenerationRequest(prompt="a cat"), GenerationContext(tmp_path / "a.mp4"))
    assert backend.kept.loaded is None


def add(tensors: dict[str, torch.Tensor], tmp_path: Path) -> LoadedLora:
    path = tmp_path / "a.safetensors"
    save_file(tensors, path)
    small = Transformer.from_config(SETTINGS | {"num_layers": 2, "num_single_layers": 3}).requires_grad_(False)
    return add_loras(small, [LoraConfig(path=str(path))])[0]


@pytest.mark.parametrize("prefix", [TE, "text_encoder.layers.0", "base_model.model.text_model.encoder", "bundle_emb.x"])
def test_what_is_not_of_the_transformer_stays_a_note(prefix: str, tmp_path: Path) -> None:
    loaded = add({**PLAIN, **lora(prefix)}, tmp_path)
    assert loaded.layers == 1
    assert loaded.notes[-1].startswith("2 of the 4 keys of a.safetensors are not used")


def test_the_blocks_of_flux_are_noted(tmp_path: Path) -> None:
    blocks = [lora("transformer_blocks.0.attn.to_q"), lora("single_transformer_blocks.0.attn.to_q")]
    loaded = add(blocks[0] | blocks[1], tmp_path)
    assert [("FLUX.1" in note) for note in loaded.notes] == [True]
