"""Tensors of the elementwise parts of a block, line by line: first as in diffusers, then as in this package.

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


def modulate_into(t: Trace, size: int) -> None:
    """``Eager.modulate`` on ``size`` bytes: ``norm(x)``, times the scale in place, plus the shift into ``out``."""
    t.make("normed piece", size)
    t.copy(size)
    t.copy(size)
    t.drop("normed piece")


def add_gated(t: Trace, size: int) -> None:
    """``Eager.add_gated`` on ``size`` bytes: the product in place, and the sum, which reads two tensors."""
    t.copy(size)
    t.copy(size * 3 // 2)


def rms_norm_into(t: Trace, name: str, size: int, out: str | None) -> None:
    """``normalize`` of ``size`` bytes: one fused kernel, then the product with the weight, to ``out`` or in place."""
    t.make("output of rms_norm", size)
    t.copy(size)
    if out is None:
        t.rename("output of rms_norm", name)
    else:
        t.drop("output of rms_norm")


def rotate_in_place(t: Trace, elements: int, each: int) -> None:
    """``rotate_``: a complex product in place, in half precision on float32 copies of one piece at a time."""
    if each == 4:
        t.copy(elements * 4)
        return

    def rotate_piece(length: int) -> None:
        t.make("in float32", length * 4, moves=False)
        for size in (length * (each + 4) // 2, length * 4, length * (each + 4) // 2):  # there, product, and back
            t.copy(size)
        t.drop("in float32")

    whole, rest = divmod(elements, ROTARY_PIECE_BYTES // 4)
    t.repeat(whole, lambda: rotate_piece(ROTARY_PIECE_BYTES // 4))
    if rest:
        rotate_piece(rest)
