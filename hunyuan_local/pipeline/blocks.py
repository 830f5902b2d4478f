"""The transformer's blocks without joined copies, their feed-forward layers in chunks of tokens.

diffusers joins image and text tokens four times in a single-stream block, and the outputs of attention and feed-forward
layer once more, and it keeps the feed-forward layers' tensors of all tokens: four to nine times the size of the block's
input. Here the modulated image and text are written into one tensor from the start, and attention output and GELU into
the buffer of one chunk, which ``proj_out`` reads. The values are the same: every operation but attention works on each
token alone.

Models with ``token_replace`` modulate the tokens of the first frame, which is the input image, by other vectors than
the rest: their streams have two segments.

Only this transformer's blocks change, each by a new ``forward`` below its hooks, so that the class names stay, by which
diffusers finds step caches and LoRA layers. Compiled blocks and calls with gradients use diffusers' code.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import HunyuanVideoTransformer3DModel

from .attention.elementwise import Eager, Elementwise
from .attention.projections import JoinedProcessor
from .diffusers_private import (
    HunyuanVideoSingleTransformerBlock,
    HunyuanVideoTokenReplaceSingleTransformerBlock,
    HunyuanVideoTokenReplaceTransformerBlock,
    HunyuanVideoTransformerBlock,
    replace_forward,
)
from .torch_private import gelu_into

# Tokens of a chunk. On a CPU its tensors should fit into the caches; on a GPU a chunk should be large enough for
# efficient matrix products and few reads of the weights, and small enough that attention determines the peak.
_CHUNK_ON_CPU = 512
_CHUNK_ON_GPU = 2**14
_DUAL = (HunyuanVideoTransformerBlock, HunyuanVideoTokenReplaceTransformerBlock)
_SINGLE = (HunyuanVideoSingleTransformerBlock, HunyuanVideoTokenReplaceSingleTransformerBlock)

Output = tuple[torch.Tensor, torch.Tensor]


def run_in_chunks(transformer: HunyuanVideoTransformer3DModel, elementwise: Elementwise | None = None) -> None:
    """Let every block run without joined copies and in chunks.

    Args:
        transformer: its attention processors are ours already (``mask_free.drop_padding``).
        elementwise: how the blocks and their attention do elementwise work; None for torch's operations.
    """
    elementwise = elementwise or Eager()
    for module in transformer.modules():
        if isinstance(getattr(module, "processor", None), JoinedProcessor):
            module.processor.elementwise = elementwise
        if type(module) in _DUAL:
            replace_forward(module, functools.partial(_dual, elementwise=elementwise))
        elif type(module) in _SINGLE:
            replace_forward(module, functools.partial(_single, elementwise=elementwise))


def _uses_library_code(block: Any, hidden_states: torch.Tensor, temb: torch.Tensor) -> bool:
    """Whether a call must run as in diffusers: compiled, with gradients, in mixed precision, another processor."""
    return (
        torch.compiler.is_compiling()
        or torch.is_grad_enabled()
        or hidden_states.dtype != temb.dtype
        or not isinstance(block.attn.processor, JoinedProcessor)
    )


def _dual(
    block: Any, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, temb: torch.Tensor,
    attention_mask: torch.Tensor | None = None, freqs_cis: Output | None = None,
    token_replace_emb: torch.Tensor | None = None, num_tokens: int = 0, *, elementwise: Elementwise,
) -> Output:  # fmt: skip
    """``HunyuanVideoTransformerBlock.forward``: streams for image and text that meet only in attention.

    With ``token_replace_emb`` (None for other models), it modulates the first ``num_tokens`` image tokens.
    """
    streams, first = (hidden_states, encoder_hidden_states), (token_replace_emb, num_tokens)
    if _uses_library_code(block, hidden_states, temb):
        found: Output = type(block).forward(block, *streams, temb, attention_mask, freqs_cis, *first)
        return found
    parts = (
        _segments(block.norm1, hidden_states, temb, 6, *first),
        _segments(block.norm1_context, encoder_hidden_states, temb, 6),
    )
    normed = []
    for x, norm, segments in zip(streams, (block.norm1, block.norm1_context), parts, strict=True):
        normed.append(x.new_empty(x.shape))  # contiguous, which the first block's input is not
        _modulate_into(elementwise, norm.norm, x, segments, normed[-1])
    attended = block.attn(
        hidden_states=normed[0], encoder_hidden_states=normed[1], attention_mask=attention_mask,
        image_rotary_emb=freqs_cis,
    )  # fmt: skip
    layers = ((block.norm2, block.ff), (block.norm2_context, block.ff_context))
    for x, out, y, (norm, ff), segments in zip(streams, normed, attended, layers, parts, strict=True):
        for segment in segments:  # ``normed`` is not needed any more and takes the output
            _, _, gate, shift, scale, gate_mlp = segment.vectors
            for piece in segment.chunks(x):
                whole = out[:, piece]
                inner = elementwise.add_gated_and_modulate(x[:, piece], y[:, piece], gate, norm, scale, shift, whole)
                elementwise.add_gated(whole, ff(inner), gate_mlp, whole)
    return normed[0], normed[1]


def _single(
    block: Any, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, temb: torch.Tensor,
    attention_mask: torch.Tensor | None = None, image_rotary_emb: Output | None = None,
    token_replace_emb: torch.Tensor | None = None, num_tokens: int = 0, *, elementwise: Elementwise,
) -> Output:  # fmt: skip
    """``HunyuanVideoSingleTransformerBlock.forward``: one stream, attention parallel to the feed-forward layer.

    ``token_replace_emb`` and ``num_tokens`` are as in ``_dual``.
    """
    streams, first = (hidden_states, encoder_hidden_states), (token_replace_emb, num_tokens)
    if _uses_library_code(block, hidden_states, temb):
        found: Output = type(block).forward(block, *streams, temb, attention_mask, image_rotary_emb, *first)
        return found
    length = hidden_states.shape[1]
    joined = hidden_states.new_empty(
        len(hidden_states), length + encoder_hidden_states.shape[1], hidden_states.shape[2]
    )
    segments = _segments(block.norm, joined, temb, 3, *first)
    for x, out, start in zip(streams, (joined[:, :length], joined[:, length:]), (0, length), strict=True):
        own = [segment.within(start, start + x.shape[1]) for segment in segments]
        _modulate_into(elementwise, block.norm.norm, x, own, out)
    attended, _ = block.attn(
        hidden_states=joined, encoder_hidden_states=None, attention_mask=attention_mask,
        image_rotary_emb=image_rotary_emb,
    )  # fmt: skip
    pieces, width = [(piece, segment) for segment in segments for piece in segment.chunks(joined)], joined.shape[2]
    longest = max(piece.stop - piece.start for piece, _ in pieces)
    buffer = joined.new_empty(len(joined), longest, block.proj_out.in_features)
    for piece, segment in pieces:
        rows = buffer[:, : piece.stop - piece.start]
        rows[..., :width] = attended[:, piece]
        gelu_into(block.proj_mlp(joined[:, piece]), block.act_mlp.approximate, rows[..., width:])
        # ``joined`` is not needed any more in this piece and takes the output.
        _add_to_both(elementwise, block.proj_out(rows), segment.vectors[2], streams, joined, piece)
    return joined[:, :length], joined[:, length:]


@dataclass(frozen=True)
class _Segment:
    """Tokens ``start`` to ``stop`` of a stream, which the same vectors modulate: shift, 1 + scale, gate and so on."""

    start: int
    stop: int
    vectors: list[torch.Tensor]

    def within(self, start: int, stop: int) -> _Segment:
        """The tokens in this range, counted from its start; may be none."""
        first, last = (min(max(place, start), stop) - start for place in (self.start, self.stop))
        return _Segment(first, last, self.vectors)

    def chunks(self, x: torch.Tensor) -> list[slice]:
        """Ranges of the stream ``x`` [B, tokens, channels], as :func:`chunks`."""
        pieces = chunks(x[:, self.start : self.stop])
        return [slice(self.start + piece.start, self.start + piece.stop) for piece in pieces]


def _segments(
    norm: Any, x: torch.Tensor, temb: torch.Tensor, count: int, first: torch.Tensor | None = None, tokens: int = 0
) -> list[_Segment]:
    """The segments of a stream: one, or two if ``first`` is the embedding of the first ``tokens``."""
    rest = _Segment(0 if first is None else tokens, x.shape[1], _conditions(norm, temb, count))
    return [rest] if first is None else [_Segment(0, tokens, _conditions(norm, first, count)), rest]


def _add_to_both(
    elementwise: Elementwise, y: torch.Tensor, gate: torch.Tensor, streams: Output, out: torch.Tensor, piece: slice
) -> None:
    """``out[:, piece] = [image, text][:, piece] + y * gate``, where a piece can span the end of the image."""
    offset = 0
    for x in streams:
        start, stop = max(piece.start, offset), min(piece.stop, offset + x.shape[1])
        if start < stop:
            elementwise.add_gated(
                x[:, start - offset : stop - offset], y[:, start - piece.start : stop - piece.start], gate,
                out[:, start:stop],
            )  # fmt: skip
        offset += x.shape[1]


def _conditions(norm: Any, temb: torch.Tensor, count: int) -> list[torch.Tensor]:
    """Vectors [B, 1, channels] of an ``AdaLayerNormZero``: shift, scale and gate, a second time if ``count`` is 6.

    Returns ``1 + scale`` where diffusers has ``scale``.
    """
    found = list(norm.linear(norm.silu(temb))[:, None].chunk(count, dim=2))
    found[1::3] = [1 + scale for scale in found[1::3]]
    return found


def _modulate_into(
    elementwise: Elementwise, norm: torch.nn.Module, x: torch.Tensor, segments: list[_Segment], out: torch.Tensor
) -> None:  # fmt: skip
    for segment in segments:
        shift, scale, *_ = segment.vectors
        for piece in segment.chunks(x):
            elementwise.modulate(norm, x[:, piece], scale, shift, out[:, piece])


def chunks(x: torch.Tensor) -> list[slice]:
    """Ranges of tokens [B, tokens, channels] of about equal length, the longest first; at most the limit.

    None for no tokens.
    """
    tokens, limit = x.shape[1], _CHUNK_ON_CPU if x.device.type == "cpu" else _CHUNK_ON_GPU
    count = max(1, -(-tokens // limit))
    length = max(1, -(-tokens // count))
    return [slice(start, min(start + length, tokens)) for start in range(0, tokens, length)]
