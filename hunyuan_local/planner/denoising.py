"""What one forward pass of the transformer costs, traced as diffusers' ``transformer_hunyuan_video`` runs it.

Within a pass all blocks of a kind cost the same, so one of each is traced. Peaks are of the tensors
beside the weights; what a quantised layer makes while it runs is traced with it. Knows nothing about
where the weights are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from .architecture import Transformer
from .quantization import FULL, Method
from .trace import Cost, Trace

# How attention hides the padding of the text: not at all, where it has been cut off (pipeline/attention.py);
# by a mask [1, 1, 1, N] (diffusers since 0.32.2); by one of [1, N, N] (diffusers 0.32.0 and 0.32.1).
Mask = Literal["none", "row", "square"]


@dataclass(frozen=True)
class Pass:
    """One forward pass.

    Attributes:
        latent_tokens, text_tokens: of one video; the text tokens are those that the transformer sees.
        each: bytes of an activation's element.
        mask: how padding is hidden.
        method: how the linear layers are stored and multiplied.
    """

    latent_tokens: int
    text_tokens: int
    each: int = 2
    mask: Mask = "none"
    method: Method = FULL

    @property
    def tokens(self) -> int:
        """Of the video and its text."""
        return self.latent_tokens + self.text_tokens


@lru_cache(maxsize=256)
def trace_pass(config: Transformer, run: Pass) -> Cost:
    """The cost of ``HunyuanVideoTransformer3DModel.forward`` at batch 1."""
    walk = _Walk(config, run)
    cost = walk.ends().then(walk.dual_block(), config.num_layers)
    return cost.then(walk.single_block(), config.num_single_layers)


def explain_peak(config: Transformer, run: Pass) -> list[tuple[str, int]]:
    """Name and bytes of the tensors that live at the peak of the pass, the largest first."""
    walk = _Walk(config, run)
    costs = [(cost().peak_bytes, walk.at_peak) for cost in (walk.ends, walk.dual_block, walk.single_block)]
    return max(costs, key=lambda item: item[0])[1]


class _Walk:
    """The parts of the forward pass; names of tensors are those of the library's variables."""

    def __init__(self, config: Transformer, run: Pass):
        self.config, self.run = config, run
        self.at_peak: list[tuple[str, int]] = []
        width = config.width * run.each
        # [B, N, width] of the video's tokens, of the text's, and of both.
        self.video, self.text, self.both = (n * width for n in (run.latent_tokens, run.text_tokens, run.tokens))

    def ends(self) -> Cost:
        """The embedders before the blocks and the projection after them."""
        config, run, t = self.config, self.run, self._begin()
        d, patch = config.width, config.patch_size_t * config.patch_size**2
        self._conditions(t, "temb", 256, config.pooled_projection_dim, guidance=config.guidance_embeds)
        t.convolution(run.latent_tokens * d, config.in_channels * patch)
        t.make("hidden_states", self.video)
        self._refine_text(t)
        # norm_out: AdaLayerNormContinuous; proj_out; then the patches are put in their places by a copy.
        t.matmul(1, d, 2 * d)
        self._modulate(t, "hidden_states", "hidden_states", self.video)
        out = run.latent_tokens * patch * config.out_channels * run.each
        t.matmul(run.latent_tokens, d, patch * config.out_channels)
        t.make("proj_out", out, moves=False)
        t.make("sample", out)
        return self._end(t)

    def dual_block(self) -> Cost:
        """``HunyuanVideoTransformerBlock``: video and text apart, joined in attention alone."""
        run, t = self.run, self._begin()
        t.make("hidden_states of the block before", self.video, moves=False)
        t.make("encoder_hidden_states of the block before", self.text, moves=False)
        # 1. Input normalization
        for source, size in (("hidden_states", self.video), ("encoder_hidden_states", self.text)):
            self._linear(t, "emb", 1, self.config.width, 6 * self.config.width)
            t.drop("emb")
            self._modulate(t, f"{source} of the block before", f"norm_{source}", size)
        # 2. Joint attention
        self._attend_jointly(t)
        # 3. Modulation and residual connection
        for source, output, size in (
            ("hidden_states", "attn_output", self.video),
            ("encoder_hidden_states", "context_attn_output", self.text),
        ):
            self._gated_sum(t, source, output, size)
            # norm2 and its modulation replace the normed input.
            self._modulate(t, source, f"norm_{source}", size)
        # 4. Feed-forward
        for name, size, rows in (
            ("hidden_states", self.video, run.latent_tokens),
            ("encoder_hidden_states", self.text, run.text_tokens),
        ):
            self._feed_forward(t, f"ff of {name}", rows, self.config.mlp_width)
            self._gated_sum(t, f"next {name}", f"ff of {name}", size)
        return self._end(t)

    def single_block(self) -> Cost:
        """``HunyuanVideoSingleTransformerBlock``: all tokens in one stream, attention beside feed-forward."""
        run, t, both = self.run, self._begin(), self.both
        d, inside = self.config.width, self.config.mlp_width
        t.make("hidden_states of the block before", both, moves=False)
        t.make("hidden_states and residual", both)
        # 1. Input normalization; proj_mlp's output is an argument of act_mlp and lives until that returns.
        self._linear(t, "emb", 1, d, 3 * d)
        t.drop("emb")
        self._modulate(t, "hidden_states and residual", "norm_hidden_states", both)
        self._linear(t, "proj_mlp", run.tokens, d, inside)
        t.make("mlp_hidden_states", run.tokens * inside * run.each)
        t.drop("proj_mlp")
        # 2. Attention, whose input is joined again from the slices of norm_hidden_states
        t.make("hidden_states of the processor", both)
        for name in ("query", "key", "value"):
            self._linear(t, name, run.tokens, d, d)
        for name in ("query", "key"):
            self._rms_norm(t, name, run.tokens)
        for name in ("query", "key"):
            self._rotate(t, name)
            t.make(name, both)  # cat of the rotated video and the text
            t.drop("out")
        self._attention(t, "attn_output and context_attn_output")
        t.drop("hidden_states of the processor", "query", "key", "value")
        t.make("attn_output", both)  # cat of the two
        # 3. Modulation and residual connection
        t.make("cat of attn_output and mlp_hidden_states", run.tokens * (d + inside) * run.each)
        self._linear(t, "proj_out", run.tokens, d + inside, d)
        t.make("gated", both)
        t.drop("proj_out", "cat of attn_output and mlp_hidden_states")
        t.make("next hidden_states", both)
        return self._end(t)

    def _begin(self) -> Trace:
        """What lives all the time: the arguments, the rotary tables (float32, cos and sin) and the mask."""
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

    def _modulate(self, t: Trace, source: str, name: str, size: int) -> None:
        """``norm(x) * (1 + scale) + shift``: three tensors, of which two live at a time beside the result before."""
        t.make("norm", size)
        t.make("scaled", size)
        t.drop("norm")
        t.make("shifted", size)
        t.drop("scaled")
        t.rename("shifted", name)

    def _gated_sum(self, t: Trace, name: str, output: str, size: int) -> None:
        """``x + output * gate``."""
        t.make("gated", size)
        t.make(name, size)
        t.drop("gated")

    def _rms_norm(self, t: Trace, name: str, tokens: int) -> None:
        """diffusers' ``RMSNorm`` of queries or keys, which squares and scales in float32."""
        own, single = tokens * self.config.width * self.run.each, tokens * self.config.width * 4
        half = self.run.each < 4
        if half:
            t.make("to(float32)", single)
        t.make("pow(2)", single)
        t.drop("pow(2)", *(["to(float32)"] if half else []))
        t.make("normed", single)
        if half:
            t.make("normed", own)  # .to(weight.dtype)
        t.make("weighted", own)
        t.drop("normed")
        t.rename("weighted", name)

    def _rotate(self, t: Trace, name: str) -> None:
        """``apply_rotary_emb`` of the video's queries or keys: ``x.float() * cos + x_rotated.float() * sin``."""
        single = self.run.latent_tokens * self.config.width * 4
        half = self.run.each < 4
        t.make("-x_imag", self.video // 2)
        t.make("x_rotated", self.video)
        t.drop("-x_imag")
        if half:
            t.make("x.float()", single)
        t.make("x * cos", single)
        if half:
            t.drop("x.float()")
            t.make("x_rotated.float()", single)
        t.make("x_rotated * sin", single)
        if half:
            t.drop("x_rotated.float()")
        t.make("sum", single)
        t.drop("x * cos", "x_rotated * sin")
        if half:
            t.make("out", self.video)
            t.drop("sum")
        else:
            t.rename("sum", "out")
        t.drop("x_rotated")

    def _attend_jointly(self, t: Trace) -> None:
        """``HunyuanVideoAttnProcessor2_0`` of a dual block."""
        run, d = self.run, self.config.width
        for name in ("query", "key", "value"):
            self._linear(t, name, run.latent_tokens, d, d)
        for name in ("query", "key"):
            self._rms_norm(t, name, run.latent_tokens)
        for name in ("query", "key"):
            self._rotate(t, name)
            t.rename("out", name)
        for name in ("encoder_query", "encoder_key", "encoder_value"):
            self._linear(t, name, run.text_tokens, d, d)
        for name in ("encoder_query", "encoder_key"):
            self._rms_norm(t, name, run.text_tokens)
        for name in ("query", "key", "value"):
            t.make(name, self.both)  # cat with the text's
        self._attention(t, "attention")
        self._linear(t, "attn_output", run.latent_tokens, d, d)
        self._linear(t, "context_attn_output", run.text_tokens, d, d)
        t.drop("query", "key", "value", "encoder_query", "encoder_key", "encoder_value", "attention")

    def _attention(self, t: Trace, name: str) -> None:
        """``scaled_dot_product_attention``: flash and memory-efficient kernels keep no scores.

        They keep a float32 sum a query and head. A boolean mask is inverted and made into numbers of
        the queries' precision before the kernel runs (``convert_boolean_attn_mask``); a row of it is
        spread over queries and heads without a copy.
        """
        run = self.run
        if run.mask == "square":
            t.make("inverted mask", run.tokens**2)
            t.make("mask in numbers", run.tokens**2 * run.each)
            t.drop("inverted mask")
        t.attention(run.tokens, run.tokens, self.config.width)
        t.make("logsumexp", run.tokens * self.config.num_attention_heads * 4, moves=False)
        t.make(name, self.both, moves=False)
        t.drop("logsumexp", *(["mask in numbers"] if run.mask == "square" else []))

    def _feed_forward(self, t: Trace, name: str, rows: int, inside: int) -> None:
        """diffusers' ``FeedForward``; the input of an activation lives until the activation returns."""
        each, d = self.run.each, self.config.width
        self._linear(t, "proj", rows, d, inside)
        t.make("activated", rows * inside * each)
        t.drop("proj")
        self._linear(t, name, rows, inside, d)
        t.drop("activated")

    def _conditions(self, t: Trace, name: str, steps: int, pooled: int, *, guidance: bool) -> None:
        """Timestep, pooled text and guidance to one vector: nothing beside a single token's width."""
        d = self.config.width
        for inner in (steps, pooled, *([steps] if guidance else [])):
            t.matmul(1, inner, d)
            t.matmul(1, d, d)
        t.make(name, d * self.run.each)

    def _refine_text(self, t: Trace) -> None:
        """``context_embedder``: the text's tokens among themselves, under a boolean mask [L, L]."""
        config, rows, d, text = self.config, self.run.text_tokens, self.config.width, self.text
        self._conditions(t, "text temb", 256, config.text_embed_dim, guidance=False)
        # (hidden_states * mask_float).sum(): in float32
        t.make("masked text", rows * config.text_embed_dim * 4)
        t.drop("masked text")
        self._linear(t, "encoder_hidden_states", rows, config.text_embed_dim, d)
        t.make("masks", 4 * rows * rows)
        for _ in range(config.num_refiner_layers):
            t.make("normed text", text)
            for name in ("query", "key", "value", "text attention"):
                self._linear(t, name, rows, d, d)
            t.attention(rows, rows, d)
            t.matmul(1, d, 2 * d)
            t.drop("query", "key", "value")
            self._gated_sum(t, "encoder_hidden_states", "text attention", text)
            self._feed_forward(t, "ff of text", rows, 4 * d)
            self._gated_sum(t, "encoder_hidden_states", "ff of text", text)
            t.drop("normed text", "text attention", "ff of text")
        t.drop("masks")
