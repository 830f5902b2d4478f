"""Checkpoints with missing or unexpected weights, or for another pipeline, are refused before weights are read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hunyuan_local.config import ModelConfig, load_model_config, load_profile
from hunyuan_local.errors import ModelLoadError
from hunyuan_local.pipeline.families.hunyuan_video import HunyuanVideo
from hunyuan_local.pipeline.loading.completeness import check_classes, check_weights
from hunyuan_local.pipeline.loading.loader import load_model

TINY = load_model_config("tiny")
CLASSES = HunyuanVideo().classes
WEIGHTS = "diffusion_pytorch_model.safetensors"
FIRST = "transformer_blocks.0.attn.to_q.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY.source, tmp_path / "checkpoint"))


def config_of(folder: Path) -> ModelConfig:
    return TINY.model_copy(update={"model_id": str(folder)})


def change_json(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def change_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


@pytest.mark.parametrize(
    ("file", "fields", "words"),
    [
        ("model_index.json", {"_class_name": "HunyuanVideoImageToVideoPipeline"}, "is a HunyuanVideoImage"),
        ("model_index.json", {"text_encoder": ["transformers", "LlavaForConditionalGeneration"]}, "Llava"),
        ("transformer/config.json", {"_class_name": "FluxTransformer2DModel"}, "transformer is FluxTransformer2DModel"),
        ("transformer/config.json", {"image_condition_type": "token_replace"}, "image_condition_type='token_replace'"),
        ("transformer/config.json", {"in_channels": 33}, "in_channels=33"),
        ("vae/config.json", {"_class_name": "AutoencoderKLWan"}, "vae is AutoencoderKLWan"),
    ],
)  # fmt: skip
def test_a_checkpoint_of_another_pipeline_is_refused_by_what_it_is(
    file: str, fields: dict[str, Any], words: str, folder: Path
) -> None:
    change_json(folder / file, **fields)
    with pytest.raises(ModelLoadError) as caught:
        check_classes(config_of(folder), folder)
    assert str(caught.value).startswith(f"model={str(folder)!r}: ")
    assert words in str(caught.value)


def test_the_built_in_checkpoint_is_complete() -> None:
    folder = Path(TINY.source)
    assert check_classes(TINY, folder).classes == CLASSES
    for component in ("transformer", "vae"):
        check_weights(TINY, folder, component, CLASSES[component])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors.pop(FIRST), f"its transformer lacks 1 weights, such as {FIRST}"),
        (lambda tensors: tensors.update({"double_blocks.0.x": torch.ones(1)}), "does not describe, such as double"),
        (lambda tensors: tensors.update({FIRST: torch.ones(64, 128)}), f"has {FIRST} with the shape [64, 128]"),
    ],
    ids=["missing", "too many", "another shape"],
)  # fmt: skip
def test_weights_that_are_not_those_of_the_transformer_are_named(
    change: Callable[[dict[str, torch.Tensor]], object], words: str, folder: Path
) -> None:
    change_weights(folder / "transformer" / WEIGHTS, change)
    with pytest.raises(ModelLoadError) as caught:
        check_weights(config_of(folder), folder, "transformer", CLASSES["transformer"])
    assert words in str(caught.value)


def test_a_configuration_without_guidance_does_not_drop_its_weights(folder: Path) -> None:
    change_json(folder / "transformer" / "config.json", guidance_embeds=False)
    with pytest.raises(ModelLoadError, match=r"does not describe, such as time_text_embed\.guidance_embedder"):
        check_weights(config_of(folder), folder, "transformer", CLASSES["transformer"])


@pytest.mark.usefixtures("loads_model")
def test_a_text_encoder_with_a_weight_missing_is_refused(folder: Path) -> None:
    file = next((folder / "text_encoder").glob("*.safetensors"))
    change_weights(file, lambda tensors: tensors.pop("layers.0.mlp.gate_proj.weight"))
    model = load_model(config_of(folder), load_profile("cpu").model_copy(update={"prompt_cache": False}))
    with pytest.raises(ModelLoadError, match=r"its text_encoder lacks 1 weights, such as layers\.0\.mlp\.gate_proj"):
        model.prompts.load()
