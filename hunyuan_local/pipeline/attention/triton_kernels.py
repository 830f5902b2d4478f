# mypy: ignore-errors
# (The functions below are in Triton's language, which only looks like Python.)
"""Two Triton kernels for the blocks' elementwise work, each one pass over its tensors.

They compute in float32 and round to the tensors' dtype wherever torch's operations do, so results differ from those at
most in the last bit: sums may be added in another order, and a product and a sum may be fused. Needs ``triton``, which
comes with torch for CUDA. Knows nothing about torch.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def norm_rotate(
    x, out, weight, table, rows, tokens, heads, rotated, eps,
    x_batch, x_token, x_head, out_batch, out_token, out_head,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """RMSNorm and rotation of ``BLOCK`` rows [CHANNELS] of [B, tokens, heads, CHANNELS].

    Args:
        rows: B * tokens * heads.
        table: float32 [rotated, CHANNELS / 2, 2], cosine and sine of each pair; later tokens are not rotated.
    """
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = row < rows
    head, token, batch = row % heads, (row // heads) % tokens, row // heads // tokens
    channel = tl.arange(0, CHANNELS)
    start = batch.to(tl.int64) * x_batch + token.to(tl.int64) * x_token + head * x_head
    given = tl.load(x + start[:, None] + channel[None, :], mask=valid[:, None], other=0.0)
    value = given.to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, axis=1) / CHANNELS + eps)
    value = (value * scale[:, None]).to(given.dtype).to(tl.float32)
    value = (value * tl.load(weight + channel)[None, :].to(tl.float32)).to(given.dtype).to(tl.float32)

    real, imaginary = tl.split(tl.reshape(value, (BLOCK, CHANNELS // 2, 2)))
    pair = tl.arange(0, CHANNELS // 2)
    turns = (valid & (token < rotated))[:, None]
    angle = token.to(tl.int64)[:, None] * CHANNELS + 2 * pair[None, :]
    cosine = tl.load(table + angle, mask=turns, other=1.0)
    sine = tl.load(table + angle + 1, mask=turns, other=0.0)
    value = tl.join(real * cosine - imaginary * sine, real * sine + imaginary * cosine)
    value = tl.reshape(value, (BLOCK, CHANNELS))
    target = batch.to(tl.int64) * out_batch + token.to(tl.int64) * out_token + head * out_head
    tl.store(out + target[:, None] + channel[None, :], value.to(given.dtype), mask=valid[:, None])


@triton.jit
def gate_norm_modulate(
    x, y, gate, scale, shift, added, out, tokens, channels, eps,
    x_batch, x_token, y_batch, y_token, added_batch, added_token, out_batch, out_token, vector_batch,
    ADDS: tl.constexpr, NORMS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One token [channels]: ``added = x + y * gate``, then ``out = layer_norm(added) * scale + shift``.

    Args:
        gate, scale, shift: [B, channels], with ``vector_batch`` elements from one video to the next.
        ADDS: without it, ``added`` is ``x`` and is not written.
        NORMS: without it, ``out`` is not written.
        BLOCK: a power of 2, at least ``channels``.
    """
    row = tl.program_id(0)
    batch, token = (row // tokens).to(tl.int64), (row % tokens).to(tl.int64)
    channel = tl.arange(0, BLOCK)
    valid = channel < channels
    vector = batch * vector_batch + channel
    given = tl.load(x + batch * x_batch + token * x_token + channel, mask=valid, other=0.0)
    value = given.to(tl.float32)
    if ADDS:
        other = tl.load(y + batch * y_batch + token * y_token + channel, mask=valid, other=0.0).to(tl.float32)
        gated = other * tl.load(gate + vector, mask=valid, other=0.0).to(tl.float32)
        value = (value + gated.to(given.dtype).to(tl.float32)).to(given.dtype)
        tl.store(added + batch * added_batch + token * added_token + channel, value, mask=valid)
        value = value.to(tl.float32)
    if NORMS:
        mean = tl.sum(value, axis=0) / channels
        centred = tl.where(valid, value - mean, 0.0)
        variance = tl.sum(centred * centred, axis=0) / channels
        normed = (centred * tl.rsqrt(variance + eps)).to(given.dtype).to(tl.float32)
        scaled = (normed * tl.load(scale + vector, mask=valid, other=0.0).to(tl.float32)).to(given.dtype)
        found = scaled.to(tl.float32) + tl.load(shift + vector, mask=valid, other=0.0).to(tl.float32)
        tl.store(out + batch * out_batch + token * out_token + channel, found.to(given.dtype), mask=valid)
