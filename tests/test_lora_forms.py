"""The less common forms of LoRA files: the values that each adds, by formulas written out here.

They were compared once with LyCORIS 3 (``functional.loha``, ``functional.lokr``, ``general.rebuild_tucker``) and peft
0.21 (``get_delta_weight``, ``merge``).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel
from safetensors.torch import save_file

from hunyuan_local.config import LoraConfig, load_model_config
from hunyuan_local.errors import ModelLoadError
from hunyuan_local.pipeline.loading.lora_formulas import Hadamard, Kronecker
from hunyuan_local.pipeline.loading.lora_loader import add_loras

Transformer = HunyuanVideoTransformer3DModel
SETTINGS = json.loads((Path(load_model_config("tiny").source) / "transformer" / "config.json").read_text())
KOHYA = "lora_unet_double_blocks_0_img_attn_qkv"  # one layer there, three in diffusers: 384 rows, 128 columns
QKV = [f"transformer_blocks.0.attn.to_{part}" for part in "qkv"]
Q = QKV[0]


@pytest.fixture
def transformer() -> Transformer:
    """Two double and three single blocks of the built-in model's width, with random weights."""
    torch.manual_seed(0)
    return Transformer.from_config(SETTINGS | {"num_layers": 2, "num_single_layers": 3}).requires_grad_(False)


def random(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(*shape)


def write(tmp_path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> Path:
    save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / "a.safetensors", metadata)
    return tmp_path / "a.safetensors"


def changes(transformer: Transformer, path: Path, scale: float = 1.0) -> dict[str, torch.Tensor]:
    """The changes of all parameters that a file changed."""
    before = {name: value.clone() for name, value in transformer.state_dict().items()}
    add_loras(transformer, [LoraConfig(path=str(path), scale=scale)])
    after = transformer.state_dict()
    return {name: after[name] - value for name, value in before.items() if not torch.equal(after[name], value)}


def assert_added(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def of_qkv(matrix: torch.Tensor) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": rows for name, rows in zip(QKV, matrix.split(128), strict=True)}


# --- Values ---


def test_a_locon_adds_up_times_mid_times_down(transformer: Transformer, tmp_path: Path) -> None:
    up, mid, down = random(384, 4), random(4, 4), random(4, 128)
    path = write(tmp_path, {f"{KOHYA}.lora_up.weight": up, f"{KOHYA}.lora_mid.weight": mid,
                            f"{KOHYA}.lora_down.weight": down, f"{KOHYA}.alpha": torch.tensor(2.0)})  # fmt: skip
    expected = 0.5 * torch.einsum("or,rs,si->oi", up, mid, down)
    assert_added(changes(transformer, path), of_qkv(expected))


@pytest.mark.parametrize(("alpha", "factor"), [(None, 1.0), (2.0, 0.5)])
def test_a_loha_adds_the_product_of_two_loras_element_by_element(
    alpha: float | None, factor: float, transformer: Transformer, tmp_path: Path
) -> None:
    w1_a, w1_b, w2_a, w2_b = random(384, 4), random(4, 128), random(384, 4), random(4, 128)
    tensors = {f"{KOHYA}.hada_w1_a": w1_a, f"{KOHYA}.hada_w1_b": w1_b,
               f"{KOHYA}.hada_w2_a": w2_a, f"{KOHYA}.hada_w2_b": w2_b}  # fmt: skip
    if alpha is not None:
        tensors[f"{KOHYA}.alpha"] = torch.tensor(alpha)
    expected = factor * torch.einsum("or,ri,os,si->oi", w1_a, w1_b, w2_a, w2_b)
    assert_added(changes(transformer, write(tmp_path, tensors), 0.7), of_qkv(0.7 * expected))


def lokr(w1: str, w2: str, alpha: float | None) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A LoKr's keys, w1 [4, 8] and w2 [96, 16] whole or of rank 2, and its matrix at factor 1."""
    parts: dict[str, torch.Tensor] = {}
    halves = []
    for name, form, (rows, columns) in (("w1", w1, (4, 8)), ("w2", w2, (96, 16))):
        if form == "whole":
            parts[f"lokr_{name}"] = half = random(rows, columns)
        else:
            parts[f"lokr_{name}_a"], parts[f"lokr_{name}_b"] = random(rows, 2), random(2, columns)
            half = parts[f"lokr_{name}_a"] @ parts[f"lokr_{name}_b"]
        halves.append(half)
    if alpha is not None:
        parts["alpha"] = torch.tensor(alpha)
    # Row i * 96 + j, column k * 16 + l is w1[i, k] * w2[j, l].
    matrix = (halves[0][:, None, :, None] * halves[1][None, :, None, :]).reshape(384, 128)
    return {f"{KOHYA}.{name}": value for name, value in parts.items()}, matrix


@pytest.mark.parametrize(
    ("w1", "w2", "alpha", "factor"),
    [
        ("whole", "factors", 1.0, 0.5),
        ("factors", "whole", 1.0, 0.5),
        ("factors", "factors", 4.0, 2.0),
        ("whole", "factors", None, 1.0),
        ("whole", "whole", None, 1.0),
        ("whole", "whole", 7.0, 1.0),  # LyCORIS: neither half has a rank, so nothing is scaled
    ],
)
def test_a_lokr_adds_the_kronecker_product(
    w1: str, w2: str, alpha: float | None, factor: float, transformer: Transformer, tmp_path: Path
) -> None:
    tensors, matrix = lokr(w1, w2, alpha)
    assert_added(changes(transformer, write(tmp_path, tensors)), of_qkv(factor * matrix))


def test_a_whole_difference_is_added_to_weight_and_bias(transformer: Transformer, tmp_path: Path) -> None:
    weight, bias = random(384, 128), random(384)
    name = "diffusion_model.double_blocks.0.img_attn.qkv"
    found = changes(transformer, write(tmp_path, {f"{name}.diff": weight, f"{name}.diff_b": bias}), -0.5)
    biases = {f"{name}.bias": -0.5 * rows for name, rows in zip(QKV, bias.split(128), strict=True)}
    assert_added(found, of_qkv(-0.5 * weight) | biases)


def test_the_swapped_halves_of_the_last_modulation_are_put_right_in_every_form(
    transformer: Transformer, tmp_path: Path
) -> None:
    weight, bias = random(256, 128), random(256)
    name = "diffusion_model.final_layer.adaLN_modulation.1"
    found = changes(transformer, write(tmp_path, {f"{name}.diff": weight, f"{name}.diff_b": bias}))
    swapped = {"norm_out.linear.weight": weight.roll(128, 0), "norm_out.linear.bias": bias.roll(128, 0)}
    assert_added(found, swapped)


def test_the_difference_of_a_norm_is_added(transformer: Transformer, tmp_path: Path) -> None:
    weight = random(32)
    path = write(tmp_path, {"diffusion_model.double_blocks.0.img_attn.norm.query_norm.diff": weight})
    assert_added(changes(transformer, path), {"transformer_blocks.0.attn.norm_q.weight": weight})


def test_a_lora_of_the_patch_embedding_is_added(transformer: Transformer, tmp_path: Path) -> None:
    down, up = random(4, 16, 1, 2, 2), random(128, 4, 1, 1, 1)
    name = "diffusion_model.img_in.proj"
    found = changes(transformer, write(tmp_path, {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}))
    expected = torch.einsum("orabc,ridhw->oidhw", up, down)
    assert_added(found, {"x_embedder.proj.weight": expected})


def plain(prefix: str = "transformer.", end: str = ".weight") -> dict[str, torch.Tensor]:
    return {f"{prefix}{Q}.lora_A{end}": random(4, 128), f"{prefix}{Q}.lora_B{end}": random(128, 4)}


def product(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    down, up = list(tensors.values())[:2]
    return up @ down


def test_the_bias_of_lora_b_is_scaled_as_the_rest(transformer: Transformer, tmp_path: Path) -> None:
    tensors, bias = plain(), random(128)
    path = write(tmp_path, {**tensors, f"transformer.{Q}.lora_B.bias": bias},
                 {"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": 8})})  # fmt: skip
    assert_added(changes(transformer, path), {f"{Q}.weight": 2 * product(tensors), f"{Q}.bias": 2 * bias})


@pytest.mark.parametrize("prefix", ["", "base_model.model.", "transformer._orig_mod.", "base_model.model.transformer."])
@pytest.mark.parametrize("end", ["", ".weight", ".default.weight", ".mine.weight"])
def test_prefixes_and_adapters_of_peft_are_understood(
    prefix: str, end: str, transformer: Transformer, tmp_path: Path
) -> None:
    tensors = plain(prefix, end)
    assert_added(changes(transformer, write(tmp_path, tensors)), {f"{Q}.weight": product(tensors)})


def test_the_settings_that_peft_writes_with_its_file_are_heeded(transformer: Transformer, tmp_path: Path) -> None:
    tensors = plain("base_model.model.")
    write(tmp_path, tensors).rename(tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 8, "r": 4, "peft_type": "LORA"}))
    found = changes(transformer, tmp_path / "adapter_model.safetensors")
    assert_added(found, {f"{Q}.weight": 2 * product(tensors)})


def test_alpha_0_of_the_settings_changes_nothing_and_is_noted(transformer: Transformer, tmp_path: Path) -> None:
    path = write(tmp_path, plain(), {"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": 0})})
    (loaded,) = add_loras(transformer, [LoraConfig(path=str(path))])
    assert "has no effect" in loaded.notes[0]


# --- With quantized layers ---


def test_a_loha_as_a_product_of_two_factors_is_the_same_matrix() -> None:
    tensors = (random(384, 3), random(3, 128), random(384, 3), random(3, 128))
    factors = Hadamard(1.0, tensors).low_rank()
    assert factors is not None
    torch.testing.assert_close(factors[1] @ factors[0], (tensors[0] @ tensors[1]) * (tensors[2] @ tensors[3]))


@pytest.mark.parametrize(("w1", "w2"), [("whole", "factors"), ("factors", "whole"), ("factors", "factors")])
def test_a_lokr_as_a_product_of_two_factors_is_the_same_matrix(w1: str, w2: str) -> None:
    tensors, matrix = lokr(w1, w2, None)
    parts = (1 if w1 == "whole" else 2, 1 if w2 == "whole" else 2)
    for part, rows in zip(Kronecker(1.0, tuple(tensors.values()), parts=parts).split([128] * 3), matrix.split(128),
                          strict=True):  # fmt: skip
        factors = part.low_rank()
        assert factors is not None
        torch.testing.assert_close(factors[1] @ factors[0], rows)


def test_a_whole_difference_is_refused_next_to_quantised_layers(
    transformer: Transformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, {f"diffusion_model.{Q}.diff": random(128, 128)})
    monkeypatch.setattr("hunyuan_local.pipeline.loading.lora_loader._is_plain", lambda weight: False)
    with pytest.raises(ModelLoadError, match=rf"lora=.*{Q} is a full matrix.*quantized"):
        add_loras(transformer, [LoraConfig(path=str(path))])
