"""The text encoder of the image-to-video checkpoint: Llava with a small vision tower, on the text model's encoders.

Knows how a picture and a prompt become embeddings while training; ``HunyuanVideoImageToVideoPipeline`` does the same
when generating.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import (
    CLIPImageProcessorPil,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from .text import IMAGE_TOKEN, PICTURE_TEMPLATE, SKIPPED_LAYERS, TextStack

IMAGE_SIZE = 64
PATCH_SIZE = 16
VISION_WIDTH = 64
# The pipeline keeps every 4th token of the picture for ``token_replace``, and cuts the four tokens that end with the
# assistant's <|end_header_id|>.
INTERLEAVE = 4
ASSISTANT_TOKENS = 4


@dataclass
class PictureStack:
    """Tokenizers, encoders and image processor of image to video."""

    tokenizer: PreTrainedTokenizerFast
    text_encoder: LlavaForConditionalGeneration
    tokenizer_2: CLIPTokenizer
    text_encoder_2: CLIPTextModel
    image_processor: CLIPImageProcessorPil
    crop_start: int
    image_start: int

    @property
    def trained(self) -> dict[str, nn.Module]:
        """Llava alone: the CLIP text encoder stays that of the text model, and so does its file."""
        return {"text_encoder": self.text_encoder}

    @property
    def image_tokens(self) -> int:
        """Number of the picture's tokens before every 4th is kept."""
        return int(self.text_encoder.config.image_seq_length)

    def prompt_template(self) -> dict[str, object]:
        """The template with its positions, as the pipeline's call takes it."""
        end = self.image_start + self.image_tokens
        return {
            "template": PICTURE_TEMPLATE,
            "crop_start": self.crop_start,
            "image_emb_start": self.image_start,
            "image_emb_end": end,
            "image_emb_len": self.image_tokens,
        }

    def encode(self, prompts: list[str], pictures: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What ``HunyuanVideoImageToVideoPipeline.encode_prompt`` computes, padded to the longest prompt only.

        Args:
            prompts: one for each picture.
            pictures: uint8 [B, height, width, 3].

        Returns:
            ``prompt_embeds`` [B, N, 96] with the picture's tokens first, ``pooled_prompt_embeds`` [B, 96],
            ``prompt_attention_mask`` [B, N].
        """
        tokens = self.tokenizer([PICTURE_TEMPLATE.format(p) for p in prompts], padding=True, return_tensors="pt")
        ids, start, count = tokens.input_ids, self.image_start, self.image_tokens
        image = torch.full((len(prompts), count), self.text_encoder.config.image_token_index)
        ids = torch.cat([ids[:, :start], image, ids[:, start + 1 :]], dim=1)
        mask = (ids != self.text_encoder.config.pad_token_id).long()
        states = self.text_encoder(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).masked_fill(mask == 0, 1),
            pixel_values=self.image_processor(list(pictures), return_tensors="pt").pixel_values,
            output_hidden_states=True,
        ).hidden_states[-(SKIPPED_LAYERS + 1)]
        kept = self._kept(ids)
        rows, width = len(prompts), states.shape[-1]
        of_picture = states[:, start : start + count : INTERLEAVE]
        embeds = torch.cat([of_picture, states[kept].view(rows, -1, width)], dim=1)
        with torch.no_grad():
            clip_tokens = self.tokenizer_2(prompts, padding=True, return_tensors="pt")
            pooled = self.text_encoder_2(clip_tokens.input_ids).pooler_output
        return embeds, pooled, torch.cat([mask.new_ones(of_picture.shape[:2]), mask[kept].view(rows, -1)], dim=1)

    def _kept(self, ids: torch.Tensor) -> torch.Tensor:
        """The tokens of the prompt and after it, without the assistant's header: bool [B, N]."""
        places = torch.arange(ids.shape[1]).expand_as(ids)
        header = self.tokenizer.convert_tokens_to_ids("<|end_header_id|>")
        end = torch.where(ids == header, places, -1).amax(dim=1, keepdim=True) + 1
        of_assistant = (places >= end - ASSISTANT_TOKENS) & (places < end)
        return (places >= self.crop_start - 1 + self.image_tokens) & ~of_assistant


def build(text: TextStack, seed: int) -> PictureStack:
    """Put a new vision tower before the encoders of a trained text model."""
    torch.manual_seed(seed + 2)
    vision = CLIPVisionConfig(
        hidden_size=VISION_WIDTH, intermediate_size=2 * VISION_WIDTH, num_hidden_layers=3, num_attention_heads=2,
        image_size=IMAGE_SIZE, patch_size=PATCH_SIZE, projection_dim=VISION_WIDTH,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision,
        text_config=text.text_encoder.config,
        image_token_index=text.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        image_seq_length=(IMAGE_SIZE // PATCH_SIZE) ** 2,
        pad_token_id=text.tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    llava = LlavaForConditionalGeneration(config)
    llava.model.language_model.load_state_dict(text.text_encoder.state_dict())
    text.text_encoder_2.requires_grad_(False)
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    before_prompt, before_image = PICTURE_TEMPLATE.split("{}")[0], PICTURE_TEMPLATE.split(IMAGE_TOKEN)[0]
    return PictureStack(
        tokenizer=text.tokenizer,
        text_encoder=llava,
        tokenizer_2=text.tokenizer_2,
        text_encoder_2=text.text_encoder_2,
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, crop_size=size),
        crop_start=len(text.tokenizer(before_prompt).input_ids),
        image_start=len(text.tokenizer(before_image).input_ids),
    )
