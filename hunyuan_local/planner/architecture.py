"""The layers of a checkpoint's four components, derived from their ``config.json``.

So planning needs neither weights nor torch. Tests compare each list with the real classes on the ``meta`` device,
layer by layer. Knows nothing about devices and dtypes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict


@dataclass(frozen=True)
class Layer:
    """One module with parameters.

    Attributes:
        name: its path in the component, such as ``transformer_blocks.0.attn.to_q``.
        kind: only ``linear`` layers are quantized.
        weight: number of elements of its weight matrix or kernel.
        out: its output features or channels; for a linear layer, the rows of the weight.
        rest: number of elements of its other parameters, mostly the bias.
    """

    name: str
    kind: Literal["linear", "conv", "norm", "embedding"]
    weight: int
    out: int
    rest: int = 0

    @property
    def parameters(self) -> int:
        """Number of elements of all its parameters."""
        return self.weight + self.rest


class Component(BaseModel):
    """The fields of a component's ``config.json`` that memory or time depend on."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def layers(self) -> Iterator[Layer]:
        """Every module with parameters, in the order of execution."""
        raise NotImplementedError

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(layer.parameters for layer in self.layers())


class Transformer(Component):
    """``HunyuanVideoTransformer3DModel`` for text to video."""

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
    image_condition_type: None = None

    @property
    def width(self) -> int:
        """Channels of a token: heads * head_dim."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def mlp_width(self) -> int:
        """Channels inside a block's feed-forward layers."""
        return int(self.width * self.mlp_ratio)

    def layers(self) -> Iterator[Layer]:
        """Embedders, dual blocks, single blocks, then the output layers."""
        d = self.width
        patch = self.patch_size_t * self.patch_size**2
        yield _conv("x_embedder.proj", self.in_channels, d, patch)
        yield from self._text_layers()
        yield from _mlp("time_text_embed.timestep_embedder", 256, d)
        yield from _mlp("time_text_embed.text_embedder", self.pooled_projection_dim, d)
        if self.guidance_embeds:
            yield from _mlp("time_text_embed.guidance_embedder", 256, d)
        for index in range(self.num_layers):
            yield from self._dual_layers(f"transformer_blocks.{index}")
        for index in range(self.num_single_layers):
            yield from self._single_layers(f"single_transformer_blocks.{index}")
        yield _linear("norm_out.linear", d, 2 * d)
        yield _linear("proj_out", d, patch * self.out_channels)

    def shapes(self) -> dict[str, tuple[tuple[int, ...], bool]]:
        """The shape of each layer's weight, and whether the layer has a bias, by the layer's name."""
        found: dict[str, tuple[tuple[int, ...], bool]] = {}
        for layer in self.layers():
            shape: tuple[int, ...] = (layer.out,) if layer.kind == "norm" else (layer.out, layer.weight // layer.out)
            if layer.kind == "conv":  # the patch embedding
                shape = (layer.out, self.in_channels, self.patch_size_t, self.patch_size, self.patch_size)
            found[layer.name] = shape, layer.rest > 0
        return found

    def _text_layers(self) -> Iterator[Layer]:
        """``context_embedder``, whose feed-forward ratio is always 4."""
        d, name = self.width, "context_embedder"
        yield from _mlp(f"{name}.time_text_embed.timestep_embedder", 256, d)
        yield from _mlp(f"{name}.time_text_embed.text_embedder", self.text_embed_dim, d)
        yield _linear(f"{name}.proj_in", self.text_embed_dim, d)
        for index in range(self.num_refiner_layers):
            block = f"{name}.token_refiner.refiner_blocks.{index}"
            yield Layer(f"{block}.norm1", "norm", d, d, d)
            yield from (_linear(f"{block}.attn.{part}", d, d) for part in ("to_q", "to_k", "to_v", "to_out.0"))
            yield Layer(f"{block}.norm2", "norm", d, d, d)
            yield _linear(f"{block}.ff.net.0.proj", d, 4 * d)
            yield _linear(f"{block}.ff.net.2", 4 * d, d)
            yield _linear(f"{block}.norm_out.linear", d, 2 * d)

    def _dual_layers(self, block: str) -> Iterator[Layer]:
        d, head = self.width, self.attention_head_dim
        for norm in ("norm1", "norm1_context"):
            yield _linear(f"{block}.{norm}.linear", d, 6 * d)
        for norm in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
            yield Layer(f"{block}.attn.{norm}", "norm", head, head)
        for part in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_out.0", "to_add_out"):
            yield _linear(f"{block}.attn.{part}", d, d)
        for part in ("ff", "ff_context"):
            yield _linear(f"{block}.{part}.net.0.proj", d, self.mlp_width)
            yield _linear(f"{block}.{part}.net.2", self.mlp_width, d)

    def _single_layers(self, block: str) -> Iterator[Layer]:
        d, head = self.width, self.attention_head_dim
        for norm in ("norm_q", "norm_k"):
            yield Layer(f"{block}.attn.{norm}", "norm", head, head)
        yield from (_linear(f"{block}.attn.{part}", d, d) for part in ("to_q", "to_k", "to_v"))
        yield _linear(f"{block}.norm.linear", d, 3 * d)
        yield _linear(f"{block}.proj_mlp", d, self.mlp_width)
        yield _linear(f"{block}.proj_out", d + self.mlp_width, d)


class Autoencoder(Component):
    """``AutoencoderKLHunyuanVideo``."""

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

    def layers(self) -> Iterator[Layer]:
        """Encoder, then decoder."""
        channels, latent = self.block_out_channels, self.latent_channels
        yield _conv("encoder.conv_in.conv", self.in_channels, channels[0], 27)
        previous = channels[0]
        for index, own in enumerate(channels):
            name = f"encoder.down_blocks.{index}"
            for resnet in range(self.layers_per_block):
                yield from _resnet(f"{name}.resnets.{resnet}", previous if resnet == 0 else own, own)
            if index < len(channels) - 1:
                yield _conv(f"{name}.downsamplers.0.conv.conv", own, own, 27)
            previous = own
        yield from self._middle("encoder")
        yield Layer("encoder.conv_norm_out", "norm", channels[-1], channels[-1], channels[-1])
        yield _conv("encoder.conv_out.conv", channels[-1], 2 * latent, 27)
        yield _conv("quant_conv", 2 * latent, 2 * latent, 1)
        yield _conv("post_quant_conv", latent, latent, 1)
        yield _conv("decoder.conv_in.conv", latent, channels[-1], 27)
        yield from self._middle("decoder")
        previous = channels[-1]
        for index, (own, factor) in enumerate(zip(reversed(channels), self.up_factors(), strict=True)):
            name = f"decoder.up_blocks.{index}"
            for resnet in range(self.layers_per_block + 1):
                yield from _resnet(f"{name}.resnets.{resnet}", previous if resnet == 0 else own, own)
            if factor:
                yield _conv(f"{name}.upsamplers.0.conv.conv", own, own, 27)
            previous = own
        yield Layer("decoder.conv_norm_out", "norm", channels[0], channels[0], channels[0])
        yield _conv("decoder.conv_out.conv", channels[0], self.out_channels, 27)

    def _middle(self, half: str) -> Iterator[Layer]:
        own, name = self.block_out_channels[-1], f"{half}.mid_block"
        for resnet in range(2):
            yield from _resnet(f"{name}.resnets.{resnet}", own, own)
        if self.mid_block_add_attention:
            yield Layer(f"{name}.attentions.0.group_norm", "norm", own, own, own)
            for part in ("to_q", "to_k", "to_v", "to_out.0"):
                yield _linear(f"{name}.attentions.0.{part}", own, own)


class Llama(Component):
    """``LlamaModel``; the pipeline uses one of its hidden states."""

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

    def layers(self) -> Iterator[Layer]:
        """The embedding, then all decoder layers and the final norm."""
        d, inside = self.hidden_size, self.intermediate_size
        queries = (self.head_dim or d // self.num_attention_heads) * self.num_attention_heads
        yield Layer("embed_tokens", "embedding", self.vocab_size * d, d)
        for index in range(self.num_hidden_layers):
            block = f"layers.{index}"
            yield _linear(f"{block}.self_attn.q_proj", d, queries, bias=False)
            for part in ("k_proj", "v_proj"):
                yield _linear(f"{block}.self_attn.{part}", d, self.key_value_width, bias=False)
            yield _linear(f"{block}.self_attn.o_proj", queries, d, bias=False)
            for part in ("gate_proj", "up_proj"):
                yield _linear(f"{block}.mlp.{part}", d, inside, bias=False)
            yield _linear(f"{block}.mlp.down_proj", inside, d, bias=False)
            for norm in ("input_layernorm", "post_attention_layernorm"):
                yield Layer(f"{block}.{norm}", "norm", d, d)
        yield Layer("norm", "norm", d, d)


class Clip(Component):
    """``CLIPTextModel``; the pipeline uses its pooled output."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int = 77
    architectures: tuple[str, ...] = ()

    def layers(self) -> Iterator[Layer]:
        """The embeddings, then all encoder layers and the final norm."""
        d, inside = self.hidden_size, self.intermediate_size
        yield Layer("embeddings.token_embedding", "embedding", self.vocab_size * d, d)
        yield Layer("embeddings.position_embedding", "embedding", self.max_position_embeddings * d, d)
        for index in range(self.num_hidden_layers):
            block = f"encoder.layers.{index}"
            for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
                yield _linear(f"{block}.self_attn.{part}", d, d)
            yield Layer(f"{block}.layer_norm1", "norm", d, d, d)
            yield _linear(f"{block}.mlp.fc1", d, inside)
            yield _linear(f"{block}.mlp.fc2", inside, d)
            yield Layer(f"{block}.layer_norm2", "norm", d, d, d)
        yield Layer("final_layer_norm", "norm", d, d, d)


@dataclass(frozen=True)
class Architecture:
    """The four components; ``source`` says which files describe them."""

    transformer: Transformer
    vae: Autoencoder
    text_encoder: Llama
    text_encoder_2: Clip
    source: str


def _linear(name: str, fan_in: int, fan_out: int, *, bias: bool = True) -> Layer:
    return Layer(name, "linear", fan_in * fan_out, fan_out, fan_out if bias else 0)


def _conv(name: str, channels_in: int, channels_out: int, kernel: int) -> Layer:
    return Layer(name, "conv", channels_in * channels_out * kernel, channels_out, channels_out)


def _mlp(name: str, fan_in: int, width: int) -> Iterator[Layer]:
    """The two linear layers of diffusers' ``TimestepEmbedding`` and ``PixArtAlphaTextProjection``."""
    yield _linear(f"{name}.linear_1", fan_in, width)
    yield _linear(f"{name}.linear_2", width, width)


def _resnet(name: str, channels_in: int, channels_out: int) -> Iterator[Layer]:
    yield Layer(f"{name}.norm1", "norm", channels_in, channels_in, channels_in)
    yield _conv(f"{name}.conv1.conv", channels_in, channels_out, 27)
    yield Layer(f"{name}.norm2", "norm", channels_out, channels_out, channels_out)
    yield _conv(f"{name}.conv2.conv", channels_out, channels_out, 27)
    if channels_in != channels_out:
        yield _conv(f"{name}.conv_shortcut.conv", channels_in, channels_out, 1)
