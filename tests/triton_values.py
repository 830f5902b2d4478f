"""Program that compares Triton's kernels with torch's operations and diffusers' transformer, in Triton's interpreter.

Prints one line of JSON: the largest difference by case. The interpreter rounds bfloat16 towards zero.
"""

from __future__ import annotations

import copy
import functools
import json

import torch
from diffusers import HunyuanVideoTransformer3DModel

from hunyuan_local.pipeline.attention.elementwise import Eager
from hunyuan_local.pipeline.attention.mask_free import drop_padding
from hunyuan_local.pipeline.attention.triton_elementwise import Fused, _distances, _draw, find_fused_problem
from hunyuan_local.pipeline.blocks import run_in_chunks
from hunyuan_local.pipeline.diffusers_private import RMSNorm


def joined_parts() -> float:
    """Keys of text and image written side by side into one tensor, as in dual-stream blocks; two videos."""
    x, text = torch.randn(2, 7, 3, 16), torch.randn(2, 4, 3, 16)
    norm = RMSNorm(16, 1e-6)
    norm.weight.data.normal_()
    table = torch.polar(torch.ones(7, 8), torch.rand(7, 8) * 9)
    found = []
    for way in (Fused(), Eager()):
        joined = torch.empty(2, 11, 3, 16)
        way.norm_rotate(norm, x.clone(), table, joined[:, :7])
        way.norm_rotate(norm, text.clone(), None, joined[:, 7:])
        found.append(joined)
    return (found[0] - found[1]).abs().max().item()


def a_step(image_condition_type: str | None = None) -> float:
    """A whole step of a small transformer in float32, with two frames of 6 tokens and a text of 5 tokens."""
    stock = HunyuanVideoTransformer3DModel(
        image_condition_type=image_condition_type,
        num_attention_heads=2, attention_head_dim=16, num_layers=1, num_single_layers=1, num_refiner_layers=1,
        text_embed_dim=24, pooled_projection_dim=12, rope_axes_dim=(4, 6, 6),
    ).eval()  # fmt: skip
    ours = copy.deepcopy(stock)
    drop_padding(ours, "native")
    run_in_chunks(ours, Fused())
    given = {
        "hidden_states": torch.randn(1, 16, 2, 4, 6), "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": torch.randn(1, 8, 24), "encoder_attention_mask": (torch.arange(8) < 5).float()[None],
        "pooled_projections": torch.randn(1, 12), "guidance": torch.tensor([6000.0]), "return_dict": False,
    }  # fmt: skip
    return (ours(**given)[0] - stock(**given)[0]).abs().max().item()


@torch.no_grad()
def main() -> None:
    """All cases."""
    torch.manual_seed(0)
    found: dict[str, object] = {"joined": joined_parts(), "step": a_step()}
    found["step of token_replace"] = a_step("token_replace")
    for dtype in (torch.float32, torch.bfloat16):
        draw = functools.partial(_draw, device="cpu", dtype=dtype)
        names = [f"{name} in {str(dtype).removeprefix('torch.')}" for name in ("rotated", "added", "modulated")]
        found |= zip(names, _distances(Fused(), draw, 128, 3072), strict=True)
    found["probe"] = find_fused_problem("cpu", torch.float32, 128, 384)
    print(json.dumps(found))


main()
