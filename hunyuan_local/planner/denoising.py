"""The cost of one forward pass of the transformer, traced as diffusers' ``transformer_hunyuan_video`` runs it.

Blocks of the same kind cost the same, so only one of each kind is traced: the FLOPs of a pass are ``ends + num_layers
* dual + num_single_layers * single``, its peak is the largest of the three. Peaks count tensors other than the
weights, including temporary ones of quantized layers. Knows nothing about where the weights are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from .architecture import Transformer
from .chunked_blocks import ChunkedBlocks
from .context_parallel import heads_a_card, swap_in, swap_out
from .elementwise import gated_sum, modulate, rms_norm, rotate
from .quantization import FULL, Method
from .trace import Cost, Trace

# How attention handles the text's padding: ``none``, the padding is cut off (this package, whose blocks are in
# chunked_blocks.py; compiled blocks are diffusers' and are planned as ``row``); ``row``, a mask [1, 1, 1, N]
# (diffusers since 0.32.2); ``square``, a mask [1, N, N] (diffusers 0.32.0 and 0.32.1).
Mask = Literal["none", "row", "square"]


@dataclass(frozen=True)
class Pass:
    """One forward pass.

    Attributes:
        latent_tokens, text_tokens: of one video; only the text tokens that the transformer sees.
        each: bytes per element of an activation.
        mask: how padding is hidden.
        method: how the linear layers are stored and multiplied.
        cards: number of cards that split the tokens; costs are then those of the card with the most tokens.
    """

    latent_tokens: int
    text_tokens: int
    each: int = 2
    mask: Mask = "none"
    method: Method = FULL
    cards: int = 1

    @property
    def tokens(self) -> int:
        """Tokens of the video and its text."""
        return self.latent_tokens + self.text_tokens

    @property
    def part(self) -> Pass:
        """One card's part; video and text tokens are split separately, each rounded up."""
        latent, text = (-(-count // self.cards) for count in (self.latent_tokens, self.text_tokens))
        return replace(self, latent_tokens=latent, text_tokens=text)


@lru_cache(maxsize=256)
def trace_pass(config: Transformer, run: Pass) -> Cost:
    """Cost of ``HunyuanVideoTransformer3DModel.forward`` at batch 1."""
    parts = trace_parts(config, run)
    cost = parts["ends"].then(parts["dual"], config.num_layers)
    return cost.then(parts["single"], config.num_single_layers)


@lru_cache(maxsize=256)
def trace_parts(config: Transformer, run: Pass) -> dict[str, Cost]:
    """Costs of the parts outside the blocks (``ends``), of one ``dual`` block and of one ``single`` block."""
    walk = _Walk(config, run)
    return {"ends": walk.ends(), "dual": walk.dual_block(), "single": walk.single_block()}


def explain_peak(config: Transformer, run: Pass) -> list[tuple[str, int]]:
    """Name and bytes of the tensors alive at the peak of the pass, largest first."""
    walk = _Walk(config, run)
    costs = [(cost().peak_bytes, walk.at_peak) for cost in (walk.ends, walk.dual_block, walk.single_block)]
    return max(costs, key=lambda item: item[0])[1]


class _Walk:
    """Traces the parts of the forward pass; tensors have the names of diffusers' variables."""

    def __init__(self, config: Transformer, run: Pass):
        self.config, self.run = config, run
        self.own = own = run.part
        self.at_peak: list[tuple[str, int]] = []
        width = config.width * run.each
        # Bytes of [1, N, width] on one card: for the video tokens, the text tokens, and both.
        self.video, self.text, self.both = (n * width for n in (own.latent_tokens, own.text_tokens, own.tokens))
        tokens = (own.latent_tokens, own.text_tokens)
        self.ours = ChunkedBlocks(config, tokens, run.each, run.method, self._attention) if run.mask == "none" else None

    def ends(self) -> Cost:
        """The embedders before the blocks and the projection after them."""
        config, run, t = self.config, self.run, self._begin()
        d, patch = config.width, config.patch_size_t * config.patch_size**2
        self._conditions(t, "temb", 256, config.pooled_projection_dim, guidance=config.guidance_embeds)
        t.convolution(run.latent_tokens * d, config.in_channels * patch)
        t.make("hidden_states of all cards", run.latent_tokens * d * run.each)
        self._refine_text(t)
        t.drop("hidden_states of all cards")
        t.make("hidden_states", self.video, moves=False)
        # norm_out: AdaLayerNormContinuous; proj_out; then unpatchifying makes a copy.
        t.matmul(1, d, 2 * d)
        modulate(t, "hidden_states", "hidden_states", self.video)
        out = run.latent_tokens * patch * config.out_channels * run.each
        t.matmul(self.own.latent_tokens, d, patch * config.out_channels)
        t.make("proj_out", out, moves=False)
        t.make("sample", out)
        return self._end(t)

    def dual_block(self) -> Cost:
        """``HunyuanVideoTransformerBlock``: video and text have separate streams that meet only in attention."""
        own, t = self.own, self._begin()
        if own.cards > 1:  # the first block's input is a view of the embedder's whole output
            t.make("hidden_states of all cards", self.run.latent_tokens * self.config.width * own.each, moves=False)
        if self.ours is not None:
            self.ours.dual(t)
            return self._end(t)
        t.make("hidden_states of the block before", self.video, moves=False)
        t.make("encoder_hidden_states of the block before", self.text, moves=False)
        # 1. Input normalization
        for source, size in (("hidden_states", self.video), ("encoder_hidden_states", self.text)):
            self._linear(t, "emb", 1, self.config.width, 6 * self.config.width)
            t.drop("emb")
            modulate(t, f"{source} of the block before", f"norm_{source}", size)
        # 2. Joint attention
        self._attend_jointly(t)
        # 3. Modulation and residual connection
        for source, output, size in (
            ("hidden_states", "attn_output", self.video),
            ("encoder_hidden_states", "context_attn_output", self.text),
        ):
            gated_sum(t, source, output, size)
            # norm2 and its modulation replace the tensor of the first norm.
            modulate(t, source, f"norm_{source}", size)
        # 4. Feed-forward
        for name, size, rows in (
            ("hidden_states", self.video, own.latent_tokens),
            ("encoder_hidden_states", self.text, own.text_tokens),
        ):
            self._feed_forward(t, f"ff of {name}", rows, self.config.mlp_width)
            gated_sum(t, f"next {name}", f"ff of {name}", size)
        return self._end(t)

    def single_block(self) -> Cost:
        """``HunyuanVideoSingleTransformerBlock``: all tokens in one stream, attention parallel to feed-forward."""
        own, t, both = self.own, self._begin(), self.both
        if self.ours is not None:
            self.ours.single(t)
            return self._end(t)
        d, inside = self.config.width, self.config.mlp_width
        t.make("hidden_states of the block before", both, moves=False)
        t.make("hidden_states and residual", both)
        # 1. Input normalization; proj_mlp's output is an argument of act_mlp and stays alive until that returns.
        self._linear(t, "emb", 1, d, 3 * d)
        t.drop("emb")
        modulate(t, "hidden_states and residual", "norm_hidden_states", both)
        self._linear(t, "proj_mlp", own.tokens, d, inside)
        t.make("mlp_hidden_states", own.tokens * inside * own.each)
        t.drop("proj_mlp")
        # 2. Attention; the processor concatenates its input again from slices of norm_hidden_states
        t.make("hidden_states of the processor", both)
        for name in ("query", "key", "value"):
            self._linear(t, name, own.tokens, d, d)
        for name in ("query", "key"):
            rms_norm(t, name, own.tokens * d, own.each)
        for name in ("query", "key"):
            self._rotate(t, name, joined=both)
        self._attention(t, "attn_output and context_attn_output")
        t.drop("hidden_states of the processor", "query", "key", "value")
        t.make("attn_output", both)  # cat of the two
        # 3. Modulation and residual connection
        t.make("cat of attn_output and mlp_hidden_states", own.tokens * (d + inside) * own.each)
        self._linear(t, "proj_out", own.tokens, d + inside, d)
        t.make("gated", both)
        t.drop("proj_out", "cat of attn_output and mlp_hidden_states")
        t.make("next hidden_states", both)
        return self._end(t)

    def _begin(self) -> Trace:
        """Start a trace with what is always alive: the arguments, the rotary tables (float32 cos and sin), the mask."""
        config, run, trace = self.config, self.run, Trace()
        latents = run.latent_tokens * config.patch_size_t * config.patch_size**2 * config.in_channels
        trace.make("latents, an argument", latents * run.each, moves=False)
        trace.make("text, an argument", run.text_tokens * config.text_embed_dim * run.each, moves=False)
        trace.make("rotary tables", 2 * run.latent_tokens * config.attention_head_dim * 4, moves=False)
        if run.mask != "none":
            trace.make("attention_mask", run.tokens ** (2 if run.mask == "square" else 1), moves=False)
        return trace

    def _end(self, trace: Trace) -> Cost:
        self.at_peak = trace.at_peak
        return trace.cost()

    def _linear(self, t: Trace, name: str, rows: int, inner: int, columns: int) -> None:
        self.run.method.multiply(t, name, rows, inner, columns, self.run.each)

    def _attend_jointly(self, t: Trace) -> None:
        """``HunyuanVideoAttnProcessor2_0`` of a dual block."""
        own, d = self.own, self.config.width
        for name in ("query", "key", "value"):
            self._linear(t, name, own.latent_tokens, d, d)
        for name in ("query", "key"):
            rms_norm(t, name, own.latent_tokens * d, own.each)
        for name in ("query", "key"):
            self._rotate(t, name)
        for name in ("encoder_query", "encoder_key", "encoder_value"):
            self._linear(t, name, own.text_tokens, d, d)
        for name in ("encoder_query", "encoder_key"):
            rms_norm(t, name, own.text_tokens * d, own.each)
        for name in ("query", "key", "value"):
            t.make(name, self.both)  # cat with the text's
        self._attention(t, "attention")
        self._linear(t, "attn_output", own.latent_tokens, d, d)
        self._linear(t, "context_attn_output", own.text_tokens, d, d)
        t.drop("query", "key", "value", "encoder_query", "encoder_key", "encoder_value", "attention")

    def _rotate(self, t: Trace, name: str, joined: int = 0) -> None:
        """``apply_rotary_emb``; with ``joined``, a tensor of that many bytes also holds the text's."""
        rotate(t, name, self.own.latent_tokens * self.config.width, self.own.each)
        if joined:
            t.make(name, joined)
            t.drop("out")
        else:
            t.rename("out", name)

    def _attention(self, t: Trace, name: str) -> None:
        """``scaled_dot_product_attention``; flash and memory-efficient kernels do not store the N x N scores.

        They store a float32 log-sum-exp per query and head: ``4 * N * heads`` bytes. A boolean mask is inverted and
        converted to the queries' dtype before the kernel runs (``convert_boolean_attn_mask``); a ``row`` mask is
        broadcast over queries and heads without a copy. With several cards, each attends over all tokens for its
        heads. FLOPs: ``4 * N * N * heads * head_dim``.
        """
        run, total = self.run, self.config.num_attention_heads
        heads, given = heads_a_card(total, run.cards), ("query", "key", "value")
        made = name if run.cards == 1 else f"{name} of the card's heads"
        if run.cards > 1:
            swap_in(t, given, self.both, total, run.cards)
        if run.mask == "square":
            t.make("inverted mask", run.tokens**2)
            t.make("mask in numbers", run.tokens**2 * run.each)
            t.drop("inverted mask")
        t.attention(run.tokens, run.tokens, heads * self.config.attention_head_dim)
        t.make("logsumexp", run.tokens * heads * 4, moves=False)
        t.make(made, run.tokens * heads * self.config.attention_head_dim * run.each, moves=False)
        t.drop("logsumexp", *(["mask in numbers"] if run.mask == "square" else []))
        if run.cards > 1:
            swap_out(t, name, given, self.both, total, run.cards)

    def _feed_forward(self, t: Trace, name: str, rows: int, inside: int) -> None:
        """diffusers' ``FeedForward``; an activation's input stays alive until the activation returns."""
        each, d = self.run.each, self.config.width
        self._linear(t, "proj", rows, d, inside)
        t.make("activated", rows * inside * each)
        t.drop("proj")
        self._linear(t, name, rows, inside, d)
        t.drop("activated")

    def _conditions(self, t: Trace, name: str, steps: int, pooled: int, *, guidance: bool) -> None:
        """Embed timestep, pooled text and guidance into one vector of one token's width: negligible memory."""
        d = self.config.width
        for inner in (steps, pooled, *([steps] if guidance else [])):
            t.matmul(1, inner, d)
            t.matmul(1, d, d)
        t.make(name, d * self.run.each)

    def _refine_text(self, t: Trace) -> None:
        """``context_embedder``: self-attention of the text tokens with a boolean mask [L, L]."""
        config, rows, d = self.config, self.run.text_tokens, self.config.width
        text = rows * d * self.run.each
        self._conditions(t, "text temb", 256, config.text_embed_dim, guidance=False)
        # (hidden_states * mask_float).sum(): in float32
        t.make("masked text", rows * config.text_embed_dim * 4)
        t.drop("masked text")
        self._linear(t, "projected text", rows, config.text_embed_dim, d)
        t.make("encoder_hidden_states", 0)
        t.make("masks", 2 * rows * rows)
        for layer in range(config.num_refiner_layers):
            t.make("normed text", text)
            t.make("text of the block before", text if layer else 0, moves=False)
            for name in ("query", "key", "value", "text attention"):
                self._linear(t, name, rows, d, d)
            t.make("mask in numbers", rows * rows * self.run.each)
            t.drop("mask in numbers")
            t.attention(rows, rows, d)
            t.matmul(1, d, 2 * d)
            t.drop("query", "key", "value")
            gated_sum(t, "encoder_hidden_states", "text attention", text)
            t.make("text normed again", text)
            self._feed_forward(t, "ff of text", rows, 4 * d)
            gated_sum(t, "encoder_hidden_states", "ff of text", text)
            t.drop("normed text", "text attention", "text normed again", "ff of text", "text of the block before")
        t.drop("masks", "projected text")
