"""The cost of this package's transformer blocks: ``pipeline/blocks.py`` and ``pipeline/attention``, line by line.

Tensors that hold all tokens are at most six at a time, each of the size of the block's input: that input, its
modulated copy, queries, keys, values and the attention's output. The feed-forward layers hold those of one chunk.
"""

from __future__ import annotations

from collections.abc import Callable

from .architecture import Transformer
from .elementwise import add_gated, modulate_into, rms_norm_into, rotate_in_place
from .quantization import Method
from .trace import Trace

# Tokens of a chunk on a GPU: hunyuan_local/pipeline/blocks.py.
CHUNK_TOKENS = 2**14
_STREAMS = ("hidden_states", "encoder_hidden_states")


class ChunkedBlocks:
    """Traces blocks of one card's tokens.

    Args:
        config: the transformer.
        tokens: of the video and of its text, on this card.
        each: bytes per element of an activation.
        method: how the linear layers are stored and multiplied.
        attention: traces attention over ``query``, ``key`` and ``value`` to an output of the given name.
    """

    def __init__(
        self, config: Transformer, tokens: tuple[int, int], each: int, method: Method,
        attention: Callable[[Trace, str], None],
    ):  # fmt: skip
        self._config, self._tokens, self._each, self._method = config, tokens, each, method
        self._attention = attention
        self._sizes = tuple(count * config.width * each for count in tokens)
        self._both = sum(self._sizes)

    def dual(self, t: Trace) -> None:
        """``_dual``: video and text have separate streams that meet only in attention."""
        self._make_table(t)
        for source, size in zip(_STREAMS, self._sizes, strict=True):
            t.make(f"{source} of the block before", size, moves=False)
            self._conditions(t, f"conditions of {source}", 6)
        for source, size, rows in zip(_STREAMS, self._sizes, self._tokens, strict=True):
            t.make(f"normed {source}", size, moves=False)
            self._in_chunks(t, rows, lambda count: modulate_into(t, count * self._row))
        self._project_separately(t)
        self._attention(t, "attention")
        t.drop("query", "key", "value")
        for name, rows in zip(("attn_output", "context_attn_output"), self._tokens, strict=True):
            self._linear(t, name, rows, self._config.width, self._config.width)
        t.drop("attention")
        for rows in self._tokens:
            self._in_chunks(t, rows, lambda count: self._feed_forward(t, count))

    def single(self, t: Trace) -> None:
        """``_single``: all tokens in one stream, attention parallel to the feed-forward layer."""
        d, inside = self._config.width, self._config.mlp_width
        self._make_table(t)
        t.make("hidden_states of the block before", self._both, moves=False)
        self._conditions(t, "conditions", 3)
        t.make("normed", self._both, moves=False)
        for rows in self._tokens:
            self._in_chunks(t, rows, lambda count: modulate_into(t, count * self._row))
        for name in ("query", "key", "value"):
            self._linear(t, name, sum(self._tokens), d, d)
            if name != "value":
                rms_norm_into(t, name, self._both, out=None)
                rotate_in_place(t, self._tokens[0] * d, self._each)
        self._attention(t, "attention")
        t.drop("query", "key", "value")
        length = min(chunk_length(sum(self._tokens)), sum(self._tokens))
        t.make("buffer of attention and GELU", length * (d + inside) * self._each, moves=False)

        def step(count: int) -> None:
            t.copy(count * self._row)  # attention
            self._linear(t, "proj_mlp", count, d, inside)
            t.copy(count * inside * self._each)  # GELU
            t.drop("proj_mlp")
            self._linear(t, "proj_out", count, d + inside, d)
            add_gated(t, count * self._row)
            t.drop("proj_out")

        self._in_chunks(t, sum(self._tokens), step)

    @property
    def _row(self) -> int:
        """Bytes of one token's channels."""
        return self._config.width * self._each

    def _make_table(self, t: Trace) -> None:
        """``ComplexTables``: 8 bytes per token and pair of a head's channels."""
        t.make("complex rotary table", self._tokens[0] * self._config.attention_head_dim * 4, moves=False)

    def _conditions(self, t: Trace, name: str, count: int) -> None:
        """``_conditions``: shift, scale and gate, and ``1 + scale``."""
        d = self._config.width
        self._linear(t, name, 1, d, count * d)
        t.make(f"1 + scale, {name}", count // 3 * d * self._each)

    def _linear(self, t: Trace, name: str, rows: int, inner: int, columns: int) -> None:
        self._method.multiply(t, name, rows, inner, columns, self._each)

    def _in_chunks(self, t: Trace, rows: int, step: Callable[[int], None]) -> None:
        """Trace ``step(tokens)`` for each of ``blocks.chunks``."""
        length = chunk_length(rows)
        t.repeat(rows // length, lambda: step(length))
        if rest := rows % length:
            step(rest)

    def _project_separately(self, t: Trace) -> None:
        """``JoinedProcessor.project`` of a dual block: video and text are written into one tensor."""
        d, (video, text) = self._config.width, self._tokens
        for name in ("query", "key", "value"):
            self._linear(t, "part", video, d, d)
            self._linear(t, "text_part", text, d, d)
            t.make(name, self._both, moves=name == "value")
            if name != "value":
                rms_norm_into(t, "part", self._sizes[0], out=name)
                rotate_in_place(t, video * d, self._each)
                rms_norm_into(t, "text_part", self._sizes[1], out=name)
            t.drop("part", "text_part")

    def _feed_forward(self, t: Trace, rows: int) -> None:
        """The sum with the attention's output, its modulation, and the feed-forward layer of one chunk."""
        d, inside, size = self._config.width, self._config.mlp_width, rows * self._row
        add_gated(t, size)
        t.make("normed piece", size)
        for _ in ("* scale", "+ shift"):
            t.copy(size)
        self._linear(t, "proj", rows, d, inside)
        t.make("activated", rows * inside * self._each)
        t.drop("proj")
        self._linear(t, "ff", rows, inside, d)
        t.drop("activated")
        add_gated(t, size)
        t.drop("ff", "normed piece")


def chunk_length(rows: int) -> int:
    """Tokens of the longest chunk of ``rows`` tokens."""
    return -(-rows // max(1, -(-rows // CHUNK_TOKENS)))
