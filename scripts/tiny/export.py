"""Writes the trained components as a checkpoint in diffusers' directory layout, in half precision."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
)

from .denoiser import FLOW_SHIFT
from .text import TextStack, save_tokenizer


def export(
    output: Path, text: TextStack, transformer: HunyuanVideoTransformer3DModel, vae: AutoencoderKLHunyuanVideo
) -> None:
    """Write all seven components to ``output``, replacing an existing checkpoint.

    Weights are stored as float16, whose rounding error is far below what is visible in the videos, to
    keep the package small.
    """
    if output.exists():
        shutil.rmtree(output)
    pipe = HunyuanVideoPipeline(
        text_encoder=text.text_encoder.to(torch.float16),
        tokenizer=text.tokenizer,
        transformer=transformer.to(torch.float16),
        vae=vae.to(torch.float16),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=FLOW_SHIFT),
        text_encoder_2=text.text_encoder_2.to(torch.float16),
        tokenizer_2=text.tokenizer_2,
    )
    pipe.save_pretrained(output, safe_serialization=True)
    _name_classes_as_the_large_checkpoint(output)
    save_tokenizer(text.tokenizer, output / "tokenizer")
    _save_clip_tokenizer(text, output / "tokenizer_2")


def _name_classes_as_the_large_checkpoint(output: Path) -> None:
    path = output / "model_index.json"
    index = json.loads(path.read_text())
    index["tokenizer"] = ["transformers", "LlamaTokenizerFast"]
    index["tokenizer_2"] = ["transformers", "CLIPTokenizer"]
    path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def _save_clip_tokenizer(text: TextStack, folder: Path) -> None:
    """Store the CLIP tokenizer as in the 13 B checkpoint: only ``vocab.json`` and ``merges.txt``."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False) + "\n")
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
