"""The cost of encoding a prompt with transformers' Llama and CLIP, traced at their peak.

It is small next to the weights. The hidden state, keys and values of every layer are kept to the end.
"""

from __future__ import annotations

from .architecture import Autoencoder, Clip, Llama
from .encoded_lengths import CLIP_TOKENS
from .trace import Cost, Trace


def trace_llama(config: Llama, tokens: int, each: int) -> Cost:
    """``LlamaModel.forward(output_hidden_states=True)`` on [1, tokens], with its default key-value cache."""
    trace = Trace()
    width, inside, keys = config.hidden_size, config.intermediate_size, config.key_value_width
    state = tokens * width * each
    trace.make("attention mask", tokens * tokens, moves=False)
    trace.make("hidden states", (config.num_hidden_layers + 1) * state, moves=False)
    trace.make("keys and values", config.num_hidden_layers * 2 * tokens * keys * each, moves=False)
    # The last layer's feed-forward: down_proj(silu(gate_proj(x)) * up_proj(x)).
    trace.make("residual", state)
    trace.make("normed", state)
    trace.make("silu(gate)", tokens * inside * each)
    trace.make("up", tokens * inside * each)
    trace.make("product", tokens * inside * each)
    for _ in range(config.num_hidden_layers):
        for columns in (width, keys, keys, width, inside, inside, inside):
            trace.matmul(tokens, width, columns)
        trace.attention(tokens, tokens, width)
    return trace.cost()


def trace_clip(config: Clip, each: int) -> Cost:
    """``CLIPTextModel.forward`` on [1, 77]; ``quick_gelu`` makes two tensors in addition to its input."""
    trace = Trace()
    width, inside = config.hidden_size, config.intermediate_size
    for name in ("embeddings", "residual", "normed", "attended"):
        trace.make(name, CLIP_TOKENS * width * each)
    for name in ("fc1", "sigmoid", "product"):
        trace.make(name, CLIP_TOKENS * inside * each)
    for _ in range(config.num_hidden_layers):
        for columns in (*(4 * [width]), inside, inside):
            trace.matmul(CLIP_TOKENS, width, columns)
        trace.attention(CLIP_TOKENS, CLIP_TOKENS, width)
    return trace.cost()


def trace_image(config: Autoencoder, height: int, width: int, each: int) -> Cost:
    """``AutoencoderKLHunyuanVideo.encode`` of one frame, whose first level has the largest tensors.

    A causal convolution pads the frame to three.

    Args:
        height, width: of the image in latents.
    """
    trace = Trace()
    level = config.block_out_channels[0] * (height * width) * config.spatial_compression_ratio**2 * each
    for name in ("residual", "normed", "activated", "convolved"):
        trace.make(name, level)
    trace.make("padded", 3 * level)
    return trace.cost()
