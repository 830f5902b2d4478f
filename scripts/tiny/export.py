"""Writes the trained components as a checkpoint in diffusers' directory layout, in half precision."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoImageToVideoPipeline,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
)

from .denoiser import FLOW_SHIFT
from .picture import PictureStack
from .text import TextStack, save_tokenizer


def export(
    output: Path,
    stack: TextStack | PictureStack,
    transformer: HunyuanVideoTransformer3DModel,
    vae: AutoencoderKLHunyuanVideo,
) -> None:
    """Write all components to ``output``, replacing an existing checkpoint.

    Weights are stored as float16, whose rounding error is far below what is visible in the videos, to
    keep the package small.
    """
    if output.exists():
        shutil.rmtree(output)
    modules = {
        "text_encoder": stack.text_encoder,
        "text_encoder_2": stack.text_encoder_2,
        "transformer": transformer,
        "vae": vae,
    }
    components = {
        # A copy: the next model's training continues from these weights.
        **{name: copy.deepcopy(module).to(torch.float16) for name, module in modules.items()},
        "tokenizer": stack.tokenizer,
        "tokenizer_2": stack.tokenizer_2,
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=FLOW_SHIFT),
    }
    if isinstance(stack, PictureStack):
        pipe = HunyuanVideoImageToVideoPipeline(**components, image_processor=stack.image_processor)
    else:
        pipe = HunyuanVideoPipeline(**components)
    pipe.save_pretrained(output, safe_serialization=True)
    _name_classes_as_the_large_checkpoint(output)
    _forget_origins(output)
    save_tokenizer(stack.tokenizer, output / "tokenizer")
    _save_clip_tokenizer(output / "tokenizer_2")


def _name_classes_as_the_large_checkpoint(output: Path) -> None:
    path = output / "model_index.json"
    index = json.loads(path.read_text())
    index["tokenizer"] = ["transformers", "LlamaTokenizerFast"]
    index["tokenizer_2"] = ["transformers", "CLIPTokenizer"]
    if "image_processor" in index:
        index["image_processor"] = ["transformers", "CLIPImageProcessor"]
        settings = output / "image_processor/preprocessor_config.json"
        named = json.loads(settings.read_text()) | {"image_processor_type": "CLIPImageProcessor"}
        settings.write_text(json.dumps(named, indent=2, sort_keys=True) + "\n")
    path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def _forget_origins(output: Path) -> None:
    """Remove the folders that weights were loaded from: they are paths of the training machine."""
    for path in output.glob("*/config.json"):
        config = json.loads(path.read_text())
        if config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _save_clip_tokenizer(folder: Path) -> None:
    """Store the CLIP tokenizer as in the 13 B checkpoint: only ``vocab.json`` and ``merges.txt``."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False) + "\n")
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
