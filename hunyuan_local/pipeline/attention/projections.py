"""Queries, keys and values of an attention layer, and its output projections, as the attention processors need them."""

from __future__ import annotations

from typing import Any

import torch

from ..diffusers_private import HunyuanVideoAttnProcessor2_0
from .elementwise import Eager, Elementwise
from .rotary import ComplexTables

# Projections and norms of queries and keys: of the image tokens, and in single-stream blocks of the text tokens too;
# _TEXT, of the text tokens of dual-stream blocks.
_JOINT = (("to_q", "norm_q"), ("to_k", "norm_k"))
_TEXT = (("add_q_proj", "norm_added_q"), ("add_k_proj", "norm_added_k"))
Tables = tuple[torch.Tensor, torch.Tensor]


class JoinedProcessor(HunyuanVideoAttnProcessor2_0):
    """Base of our processors: they also accept image and text tokens joined, as ``blocks`` passes them.

    Such a call has no ``encoder_hidden_states``: ``hidden_states`` [B, tokens, channels] starts with as many image
    tokens as the rotary tables have, and so does the result.

    Attributes:
        elementwise: how queries and keys are normalized and rotated.
    """

    def __init__(self) -> None:
        super().__init__()
        self.elementwise: Elementwise = Eager()
        self._complex = ComplexTables()

    def project(
        self, attn: torch.nn.Module, image: torch.Tensor, text: torch.Tensor | None, tables: Tables
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values [B, tokens, heads, head_dim] of the image, then the text; normalized and rotated.

        Args:
            attn: the attention layer.
            image: [B, tokens, channels]; without ``text``, the text's tokens may follow the image's.
            text: [B, tokens, channels], or None.
            tables: cosines and sines of the image tokens.
        """
        table = self._complex.of(tables)
        if text is not None and attn.add_q_proj is None:
            image, text = torch.cat([image, text], dim=1), None
        if text is None:
            query, key = (
                self.elementwise.norm_rotate(getattr(attn, norm), _heads(attn, name, image), table)
                for name, norm in _JOINT
            )
            return query, key, _heads(attn, "to_v", image)
        query, key = (self._project_both(attn, names, image, text, table) for names in zip(_JOINT, _TEXT, strict=True))
        value = torch.cat([_heads(attn, "to_v", image), _heads(attn, "add_v_proj", text)], dim=1)
        return query, key, value

    def _project_both(
        self, attn: torch.nn.Module, names: tuple[tuple[str, str], tuple[str, str]], image: torch.Tensor,
        text: torch.Tensor, table: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        """Queries or keys of image and text; the norms write directly into the joined tensor."""
        (name, norm), (text_name, text_norm) = names
        part, text_part = _heads(attn, name, image), _heads(attn, text_name, text)
        joined = part.new_empty(len(part), part.shape[1] + text_part.shape[1], *part.shape[2:])
        self.elementwise.norm_rotate(getattr(attn, norm), part, table, joined[:, : part.shape[1]])
        self.elementwise.norm_rotate(getattr(attn, text_norm), text_part, None, joined[:, part.shape[1] :])
        return joined


def _heads(attn: torch.nn.Module, name: str, states: torch.Tensor) -> torch.Tensor:
    """One projection of states [B, tokens, channels] as [B, tokens, heads, head_dim]."""
    found: torch.Tensor = getattr(attn, name)(states)
    heads: Any = attn.heads
    return found.view(*found.shape[:2], heads, -1)


def project_out(attn: torch.nn.Module, image: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply the output projections of dual-stream blocks to attention results [B, tokens, channels]."""
    to_out, to_add_out = getattr(attn, "to_out", None), getattr(attn, "to_add_out", None)
    if to_out is not None:
        image = to_out[1](to_out[0](image))
    if to_add_out is not None:
        text = to_add_out(text)
    return image, text
