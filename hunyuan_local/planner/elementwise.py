"""What the elementwise parts of a block make while they run, line by line as diffusers has them.

Each function traces one of them on a tensor of so many bytes or elements. Knows nothing about blocks.
"""

from __future__ import annotations

from .trace import Trace

# What hunyuan_local/pipeline/attention/rotary.py turns at once on a GPU, in float32.
ROTARY_PIECE_BYTES = 2**26


def modulate(t: Trace, source: str, name: str, size: int) -> None:
    """``norm(x) * (1 + scale) + shift`` of ``size`` bytes: two tensors live at a time beside the result before."""
    t.make("norm", size)
    t.make("scaled", size)
    t.drop("norm")
    t.make("shifted", size)
    t.drop("scaled")
    t.rename("shifted", name)


def gated_sum(t: Trace, name: str, output: str, size: int) -> None:
    """``x + output * gate`` of ``size`` bytes."""
    t.make("gated", size)
    t.make(name, size)
    t.drop("gated")


def rms_norm(t: Trace, name: str, elements: int, each: int) -> None:
    """diffusers' ``RMSNorm`` of queries or keys, which squares and scales in float32; ``each`` is bytes an element."""
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
    """``apply_rotary_emb`` of the video's queries or keys: ``x.float() * cos + x_rotated.float() * sin``."""
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
    """``rotate_`` of the video's queries or keys: as ``rotate``, a piece at a time, back into the same tensor."""
    whole, rest = divmod(elements, ROTARY_PIECE_BYTES // 4)

    def rotate_piece(length: int) -> None:
        rotate(t, name, length, each)
        t.copy(length * each)
        t.drop("out")

    t.repeat(whole, lambda: rotate_piece(ROTARY_PIECE_BYTES // 4))
    if rest:
        rotate_piece(rest)
