"""Small image-to-video checkpoints with random weights, of the same classes as the large ones."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import HunyuanVideoTransformer3DModel
from tokenizers import AddedToken, Tokenizer
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from hunyuan_local.config import ModelConfig, load_model_config

TEMPLATE = (
    "<|start_header_id|>system<|end_header_id|>\n\n<image>\nDescribe the video.<|eot_id|>\n\n"
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)
IMAGE_SIZE, PATCH = 24, 4  # 36 image tokens
CHANNELS = {"token_replace": 16, "latent_concat": 33}


def make_checkpoint(folder: Path, kind: str) -> ModelConfig:
    """Write a checkpoint next to the parts of ``tiny`` that it shares, and return its config.

    Args:
        folder: a new folder.
        kind: ``token_replace`` or ``latent_concat``.
    """
    tiny = load_model_config("tiny")
    assert tiny.folder is not None
    folder.mkdir(parents=True)
    for name in ("vae", "scheduler", "text_encoder_2", "tokenizer_2"):
        (folder / name).symlink_to(tiny.folder / name)
    tokenizer = _write_tokenizer(tiny.folder / "tokenizer", folder / "tokenizer")
    torch.manual_seed(0)
    _llava(json.loads((tiny.folder / "text_encoder/config.json").read_text()), tokenizer).save_pretrained(
        folder / "text_encoder"
    )
    size = {"shortest_edge": IMAGE_SIZE}
    crop = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    CLIPImageProcessorPil(size=size, crop_size=crop).save_pretrained(folder / "image_processor")
    make_transformer(kind).save_pretrained(folder / "transformer")
    index = json.loads((tiny.folder / "model_index.json").read_text()) | {
        "_class_name": "HunyuanVideoImageToVideoPipeline",
        "text_encoder": ["transformers", "LlavaForConditionalGeneration"],
        "image_processor": ["transformers", "CLIPImageProcessor"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    before = len(tokenizer(TEMPLATE.split("{}")[0]).input_ids)
    template = {"template": TEMPLATE, "crop_start": before}
    return tiny.model_copy(
        update={
            "name": f"toy-{kind}",
            "title": f"toy {kind}",
            "model_id": str(folder),
            "takes_image": True,
            "image_sizes": ((144, 80), (80, 144)),
            "render_scale": 1.0,
            "min_render_side": 16,
            "notice": None,
            "latent_preview": None,
            "mag_ratios": (),
            "prompt_template": type(tiny.prompt_template)(**template),
        }
    )


def _write_tokenizer(source: Path, folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of ``tiny`` with a token for the image."""
    raw = Tokenizer.from_file(str(source / "tokenizer.json"))
    raw.add_special_tokens([AddedToken("<image>", special=True)])
    folder.mkdir()
    raw.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text((source / "tokenizer_config.json").read_text())
    return PreTrainedTokenizerFast.from_pretrained(folder)


def _llava(llama: dict, tokenizer: PreTrainedTokenizerFast) -> LlavaForConditionalGeneration:
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=IMAGE_SIZE,
        patch_size=PATCH, projection_dim=32,
    )  # fmt: skip
    text = LlamaConfig(**llama | {"vocab_size": len(tokenizer)})
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_id=image_token, image_token_index=image_token,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return LlavaForConditionalGeneration(config)


def make_transformer(kind: str) -> HunyuanVideoTransformer3DModel:
    """The transformer of such a checkpoint, with random weights."""
    source = load_model_config("tiny").folder
    assert source is not None
    config = json.loads((source / "transformer/config.json").read_text()) | {
        "image_condition_type": kind,
        "in_channels": CHANNELS[kind],
        "guidance_embeds": kind == "token_replace",  # as the published checkpoints
    }
    return HunyuanVideoTransformer3DModel.from_config(config)
