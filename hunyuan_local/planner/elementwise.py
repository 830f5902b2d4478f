"""Tensors of the elementwise parts of a block, line by line as in diffusers.

Each function traces one part on a tensor of a given number of bytes or elements. Knows nothing about blocks.
"""

from __future__ import annotations

from .trace import Trace

# Size of the pieces that hunyuan_local/pipeline/attention/rotary.py rotates on a GPU, in float32.
ROTARY_PIECE_BYTES = 2**26


def modulate(t: Trace, source: str, name: str, size: int) -> None:
    """``norm(x) * (1 + scale) + shift`` on ``size`` bytes: two temporary tensors next to the old value of ``name``."""
    t.make("norm", size)
    t.make("scaled", size)
    t.drop("norm")
    t.make("shifted", size)
    t.drop("scaled")
    t.rename("shifted", name)


def gated_sum(t: Trace, name: str, output: str, size: int) -> None:
    """``x + output * gate`` on ``size`` bytes."""
    t.make("gated", size)
    t.make(name, size)
    t.drop("gated")


def rms_norm(t: Trace, name: str, elements: int, each: int) -> None:
    """diffusers' ``RMSNorm`` of queries or keys, which squares and scales in float32; ``each``: bytes per element."""
    own, single = elements * each, elements * 4
    half = each < 4
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


def rotate(t: Trace, name: str, elements: int, each: int) -> None:
    """``apply_rotary_emb`` on the video's queries or keys: ``x.float() * cos + x_rotated.float() * sin``."""
    own, single = elements * each, elements * 4
    half = each < 4
    t.make("-x_imag", own // 2)
    t.make("x_rotated", own)
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
        t.make("out", own)
        t.drop("sum")
    else:
        t.rename("sum", "out")
    t.drop("x_rotated")


def rotate_in_pieces(t: Trace, name: str, elements: int, each: int) -> None:
    """``rotate_`` on the video's queries or keys: like ``rotate``, but piece by piece and in place."""
    whole, rest = divmod(elements, ROTARY_PIECE_BYTES // 4)

    def rotate_piece(length: int) -> None:
        rotate(t, name, length, each)
        t.copy(length * each)
        t.drop("out")

    t.repeat(whole, lambda: rotate_piece(ROTARY_PIECE_BYTES // 4))
    if rest:
        rotate_piece(rest)
