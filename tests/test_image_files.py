"""LoRA and GGUF files of both image-to-video architectures: what they change, and which of them are refused."""

from __future__ import annotations

from pathlib import Path

import image_models
import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel
from gguf_files import official_names, write_gguf
from lora_files import IMAGE_STYLES, make_lora
from safetensors.torch import save_file

from hunyuan_local.config import LoraConfig
from hunyuan_local.errors import ModelLoadError
from hunyuan_local.pipeline.loading.gguf import load_gguf_transformer
from hunyuan_local.pipeline.loading.lora_loader import add_loras
from hunyuan_local.planner.added_files import check_added_files

KINDS = list(image_models.CHANNELS)
RANK = 4
PATCH_KEYS = {
    "diffusers": ("transformer.x_embedder.proj", "lora_A.weight", "lora_B.weight"),
    "comfy": ("diffusion_model.img_in.proj", "lora_down.weight", "lora_up.weight"),
    "kohya": ("lora_unet_img_in_proj", "lora_down.weight", "lora_up.weight"),
    "tencent-i2v": ("Hunyuan_video_I2V_lora_img_in_proj", "lora_down.weight", "lora_up.weight"),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def transformer(kind: str) -> HunyuanVideoTransformer3DModel:
    torch.manual_seed(0)
    return image_models.make_transformer(kind).eval().requires_grad_(False)


def changes(transformer: HunyuanVideoTransformer3DModel, path: Path) -> dict[str, torch.Tensor]:
    """The changes of all weights that a LoRA changed."""
    before = {name: value.clone() for name, value in transformer.state_dict().items()}
    add_loras(transformer, [LoraConfig(path=str(path))])
    after = transformer.state_dict()
    return {name: after[name] - value for name, value in before.items() if not torch.equal(after[name], value)}


def patch_lora(path: Path, channels: int, style: str = "diffusers") -> Path:
    """A LoRA of the patch embedding alone."""
    name, down, up = PATCH_KEYS[style]
    random = torch.Generator().manual_seed(1)
    save_file({f"{name}.{down}": torch.randn(RANK, channels, 1, 2, 2, generator=random),
               f"{name}.{up}": torch.randn(128, RANK, 1, 1, 1, generator=random)}, path)  # fmt: skip
    return path


@pytest.mark.parametrize("style", IMAGE_STYLES)
def test_a_lora_of_any_trainer_changes_the_weights_that_it_describes(
    style: str, transformer: HunyuanVideoTransformer3DModel, tmp_path: Path
) -> None:
    file = make_lora(tmp_path / "a.safetensors", style, alpha=2.0)
    expected = {f"{name}.weight": delta for name, delta in file.weights.items()}
    torch.testing.assert_close(changes(transformer, file.path), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("style", PATCH_KEYS)
def test_a_lora_of_the_patch_embedding_changes_all_its_channels(
    style: str, kind: str, transformer: HunyuanVideoTransformer3DModel, tmp_path: Path
) -> None:
    found = changes(transformer, patch_lora(tmp_path / "a.safetensors", image_models.CHANNELS[kind], style))
    assert {name: delta.flatten(2).abs().sum((0, 2)).gt(0).sum().item() for name, delta in found.items()} == {
        "x_embedder.proj.weight": image_models.CHANNELS[kind]
    }


def test_a_lora_with_the_channels_of_the_other_architecture_is_refused(
    kind: str, transformer: HunyuanVideoTransformer3DModel, tmp_path: Path
) -> None:
    (other,) = set(KINDS) - {kind}
    path = patch_lora(tmp_path / "a.safetensors", image_models.CHANNELS[other])
    with pytest.raises(ModelLoadError, match=rf"channels belong to .*{other}; use a LoRA made for this model"):
        add_loras(transformer, [LoraConfig(path=str(path))])


def test_a_lora_for_text_to_video_is_refused(transformer: HunyuanVideoTransformer3DModel, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    key = "transformer.transformer_blocks.0.attn.to_q"
    factors = {f"{key}.lora_A.weight": torch.ones(RANK, 128), f"{key}.lora_B.weight": torch.ones(128, RANK)}
    save_file(factors, path, {"modelspec.architecture": "hunyuan-video-t2v/lora"})
    with pytest.raises(ModelLoadError, match=r"which is not HunyuanVideo \(image to video\)"):
        add_loras(transformer, [LoraConfig(path=str(path))])


@pytest.mark.usefixtures("loads_model")
def test_a_lora_of_tencents_trainer_is_accepted_before_the_model_is_loaded(kind: str, tmp_path: Path) -> None:
    file = make_lora(tmp_path / "a.safetensors", "tencent-i2v")
    config = image_models.make_checkpoint(tmp_path / "model", kind)
    check_added_files(config.model_copy(update={"lora": (LoraConfig(path=str(file.path)),)}))


# --- GGUF ---


@torch.no_grad()
def predict(model: HunyuanVideoTransformer3DModel) -> torch.Tensor:
    """One forward pass on fixed inputs."""
    random = torch.Generator().manual_seed(0)
    guidance = {"guidance": torch.tensor([6000.0])} if model.config.guidance_embeds else {}
    return model(
        hidden_states=torch.randn(1, model.config.in_channels, 3, 6, 8, generator=random),
        timestep=torch.tensor([700.0]),
        encoder_hidden_states=torch.randn(1, 12, 96, generator=random),
        encoder_attention_mask=torch.ones(1, 12),
        pooled_projections=torch.randn(1, 96, generator=random),
        return_dict=False,
        **guidance,
    )[0]


@pytest.mark.usefixtures("loads_model")
@pytest.mark.parametrize(("number", "bound"), [("F32", 0.0), ("Q8_0", 0.02)])
def test_a_gguf_file_gives_the_predictions_of_its_weights(
    number: str, bound: float, transformer: HunyuanVideoTransformer3DModel, tmp_path: Path
) -> None:
    transformer.save_config(tmp_path)
    path = write_gguf(
        tmp_path / "hunyuan-video-i2v.gguf", official_names(transformer.state_dict()), number, title="hunyuan-video-i2v"
    )
    notes: list[str] = []
    found = predict(load_gguf_transformer(path, tmp_path, torch.float32, notes.append))
    expected = predict(transformer)
    assert notes == []
    assert (found - expected).norm() <= bound * expected.norm()


@pytest.mark.usefixtures("loads_model")
def test_a_gguf_file_with_the_channels_of_the_other_architecture_is_refused(
    kind: str, transformer: HunyuanVideoTransformer3DModel, tmp_path: Path
) -> None:
    (other,) = set(KINDS) - {kind}
    transformer.save_config(tmp_path)
    channels = image_models.CHANNELS[other]
    tensors = transformer.state_dict() | {"x_embedder.proj.weight": torch.zeros(128, channels, 1, 2, 2)}
    path = write_gguf(tmp_path / "a.gguf", official_names(tensors), "F32")
    with pytest.raises(ModelLoadError, match=rf"x_embedder\.proj\.weight .*: {channels} channels belong to .*{other}"):
        load_gguf_transformer(path, tmp_path, torch.float32)
