"""The components of a checkpoint as the planner sees them: fields of their ``config.json``, and their layers.

The layers are those of the real classes, see :mod:`.layers`. Knows nothing about devices and dtypes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict

from ..config.image_condition import IMAGE_CONDITIONS, ImageCondition
from .encoded_lengths import ASSISTANT_TOKENS, LLAMA_TOKENS
from .layers import Layer, layers_of


class Component(BaseModel):
    """The fields of a component's ``config.json`` that memory or time depend on.

    Attributes:
        class_name: its class in diffusers or transformers.
        as_json: the whole ``config.json``; empty if the other fields are all of it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    class_name: ClassVar[str]

    as_json: str = ""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """The component with this ``config.json``; raises pydantic's ``ValidationError``."""
        return cls.model_validate(dict(config) | {"as_json": json.dumps(config, sort_keys=True)})

    def layers(self) -> tuple[Layer, ...]:
        """Every module with parameters, in the order of its definition."""
        return layers_of(*self.key)

    @property
    def key(self) -> tuple[str, str]:
        """The class and the whole configuration, which determine the layers."""
        return self.class_name, self.as_json or self.model_dump_json(exclude={"as_json"})

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(layer.parameters for layer in self.layers())


class Transformer(Component):
    """``HunyuanVideoTransformer3DModel``."""

    class_name = "HunyuanVideoTransformer3DModel"

    in_channels: int = 16
    out_channels: int = 16
    num_attention_heads: int = 24
    attention_head_dim: int = 128
    num_layers: int = 20
    num_single_layers: int = 40
    num_refiner_layers: int = 2
    mlp_ratio: float = 4.0
    patch_size: int = 2
    patch_size_t: int = 1
    guidance_embeds: bool = True
    text_embed_dim: int = 4096
    pooled_projection_dim: int = 768
    image_condition_type: Literal["token_replace", "latent_concat"] | None = None

    @property
    def width(self) -> int:
        """Channels of a token: heads * head_dim."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def mlp_width(self) -> int:
        """Channels inside a block's feed-forward layers."""
        return int(self.width * self.mlp_ratio)

    @property
    def image(self) -> ImageCondition | None:
        """How an image enters; None for text to video."""
        return None if self.image_condition_type is None else IMAGE_CONDITIONS[self.image_condition_type]

    def shapes(self) -> dict[str, tuple[tuple[int, ...], bool]]:
        """The shape of each layer's weight, and whether the layer has a bias, by the layer's name."""
        return {layer.name: (layer.shape, layer.rest > 0) for layer in self.layers()}


class Autoencoder(Component):
    """``AutoencoderKLHunyuanVideo``."""

    class_name = "AutoencoderKLHunyuanVideo"

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 16
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    mid_block_add_attention: bool = True
    spatial_compression_ratio: Literal[8] = 8
    temporal_compression_ratio: Literal[4] = 4

    def up_factors(self) -> list[tuple[int, int] | None]:
        """(time, space) factor of each up block of the decoder; None for a block that does not upsample."""
        last = len(self.block_out_channels) - 1
        factors = [(2 if last - 2 <= i < last else 1, 2 if i < 3 else 1) for i in range(last + 1)]
        return [None if factor == (1, 1) else factor for factor in factors]


class Llama(Component):
    """``LlamaModel``; the pipeline uses one of its hidden states."""

    class_name = "LlamaModel"

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int | None = None
    architectures: tuple[str, ...] = ()

    @property
    def key_value_width(self) -> int:
        """Channels of a token's keys, and of its values: head_dim * num_key_value_heads."""
        return (self.head_dim or self.hidden_size // self.num_attention_heads) * self.num_key_value_heads


class Vision(Component):
    """The vision tower of Llava."""

    class_name = "CLIPVisionModel"

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    image_size: int = 336
    patch_size: int = 14


class Llava(Component):
    """``LlavaForConditionalGeneration``: Llama with a vision tower, whose tokens become part of the prompt."""

    class_name = "LlavaForConditionalGeneration"

    text_config: Llama
    vision_config: Vision = Vision()
    architectures: tuple[str, ...] = ()

    @property
    def image_tokens(self) -> int:
        """Tokens of an image: the patches of the vision tower."""
        return (self.vision_config.image_size // self.vision_config.patch_size) ** 2


class Clip(Component):
    """``CLIPTextModel``; the pipeline uses its pooled output."""

    class_name = "CLIPTextModel"

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int = 77
    architectures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Architecture:
    """The four components; ``source`` says which files describe them."""

    transformer: Transformer
    vae: Autoencoder
    text_encoder: Llama | Llava
    text_encoder_2: Clip
    source: str

    @property
    def llama(self) -> Llama:
        """The language model that encodes prompts."""
        return self.text_encoder.text_config if isinstance(self.text_encoder, Llava) else self.text_encoder

    @property
    def image_tokens(self) -> int:
        """Tokens of an image in the prompt of the text encoder; 0 for text alone."""
        return self.text_encoder.image_tokens if isinstance(self.text_encoder, Llava) else 0

    @property
    def text_tokens(self) -> int:
        """The most text and image tokens that the transformer sees."""
        image = self.transformer.image
        if image is None:
            return LLAMA_TOKENS
        return LLAMA_TOKENS - ASSISTANT_TOKENS + -(-self.image_tokens // image.image_stride)

    @property
    def extra_frames(self) -> int:
        """Frames that are generated before the first of the video."""
        return 0 if self.transformer.image is None else self.transformer.image.extra_frames
