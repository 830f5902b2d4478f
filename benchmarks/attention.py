"""Measures a denoising step with diffusers' masked attention and with ours, on a CPU.

A transformer of HunyuanVideo's class and head size, with random weights and fewer and narrower blocks, runs on the
same inputs in three ways, one after another in each round: like diffusers (text padded to 256 tokens, a key mask), with
the text cut but a mask, and like this package (text cut, no mask, cached rotary tables). Seconds are those of the
fastest round, which other load disturbs least; ratios within a round are reported too. The results do not apply to
GPUs, where a mask costs more because it rules out the fast kernels.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from diffusers import HunyuanVideoTransformer3DModel

from hunyuan_local.pipeline.attention.mask_free import drop_padding
from hunyuan_local.pipeline.attention.rotary import keep_rotary_tables
from hunyuan_local.pipeline.blocks import run_in_chunks

PADDED = 256
TEXT_DIM, POOLED_DIM = 1024, 768
MID = {
    "num_attention_heads": 6,
    "attention_head_dim": 128,
    "num_layers": 4,
    "num_single_layers": 8,
    "num_refiner_layers": 2,
    "text_embed_dim": TEXT_DIM,
    "pooled_projection_dim": POOLED_DIM,
}
# Latent frames, height and width; 2x2 latents are one token.
SHAPES = {"1k": (5, 28, 32), "8k": (9, 56, 64)}
# At 8,000 tokens a step of all blocks takes half a minute, so half of them are dropped.
FEWER_BLOCKS = {"num_layers": 2, "num_single_layers": 4}
TEXT_TOKENS = (20, 200)


@dataclass(frozen=True)
class Row:
    """One size: seconds per step in every round, and the largest difference between the results."""

    parameters: int
    latent_tokens: int
    text_tokens: int
    masked_s: list[float]
    cut_s: list[float]
    ours_s: list[float]
    largest_difference: float
    largest_value: float

    @property
    def ratios(self) -> list[float]:
        return [masked / ours for masked, ours in zip(self.masked_s, self.ours_s, strict=True)]


def inputs(shape: tuple[int, int, int], text_tokens: int) -> dict:
    """Arguments of a step; the padding is as random as the text, so that an error would show."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(1, PADDED)
    mask[:, :text_tokens] = 1
    return {
        "hidden_states": torch.randn(1, 16, *shape, generator=generator),
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": torch.randn(1, PADDED, TEXT_DIM, generator=generator),
        "encoder_attention_mask": mask,
        "pooled_projections": torch.randn(1, POOLED_DIM, generator=generator),
        "guidance": torch.tensor([6000.0]),
        "return_dict": False,
    }


def timed(step: Callable[[], tuple[torch.Tensor]]) -> tuple[float, torch.Tensor]:
    began = time.perf_counter()
    result = step()[0]
    return time.perf_counter() - began, result


@torch.no_grad()
def measure(
    stock: HunyuanVideoTransformer3DModel,
    ours: HunyuanVideoTransformer3DModel,
    shape: tuple[int, int, int],
    text_tokens: int,
    rounds: int,
) -> Row:
    """Time the three ways alternately; the first round is a warm-up."""
    padded = inputs(shape, text_tokens)
    cut = padded | {name: padded[name][:, :text_tokens] for name in ("encoder_hidden_states", "encoder_attention_mask")}
    masked_s, cut_s, ours_s = [], [], []
    for _ in range(rounds + 1):
        seconds, expected = timed(lambda: stock(**padded))
        masked_s.append(seconds)
        cut_s.append(timed(lambda: stock(**cut))[0])
        seconds, found = timed(lambda: ours(**padded))
        ours_s.append(seconds)
    return Row(
        parameters=sum(parameter.numel() for parameter in stock.parameters()),
        latent_tokens=shape[0] * shape[1] * shape[2] // 4,
        text_tokens=text_tokens,
        masked_s=masked_s[1:],
        cut_s=cut_s[1:],
        ours_s=ours_s[1:],
        largest_difference=(found - expected).abs().max().item(),
        largest_value=expected.abs().max().item(),
    )


def machine() -> dict[str, str | int]:
    """What the results depend on, without the machine's name."""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    return {
        "cpu": cpu,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": version("diffusers"),
    }


def as_text(facts: dict, rows: list[Row]) -> str:
    lines = [
        "A denoising step on a CPU: diffusers' masked attention, and this package's.",
        "",
        ", ".join(f"{name} {value}" for name, value in facts.items()),
        f"random weights, float32, {MID['num_attention_heads']} heads x {MID['attention_head_dim']}; "
        "seconds are those of the fastest round, ratios are masked / ours",
        "",
        "model  latent  text    rounds  masked   cut, masked  ours     fastest  within a round          largest",
        "       tokens  tokens          s        s            s        ratio    median (range)          difference",
    ]
    for row in rows:
        fastest = [min(seconds) for seconds in (row.masked_s, row.cut_s, row.ours_s)]
        spread = f"{statistics.median(row.ratios):.2f} ({min(row.ratios):.2f} to {max(row.ratios):.2f})"
        lines.append(
            f"{row.parameters / 1e6:<3.0f} M  {row.latent_tokens:<8}{row.text_tokens:<8}{len(row.ours_s):<8}"
            f"{fastest[0]:<9.3f}{fastest[1]:<13.3f}{fastest[2]:<9.3f}{fastest[0] / fastest[2]:<9.2f}{spread:<24}"
            f"{row.largest_difference:.1e} of {row.largest_value:.1f}"
        )
    return "\n".join(lines) + "\n"


def models(changes: dict[str, int]) -> tuple[HunyuanVideoTransformer3DModel, HunyuanVideoTransformer3DModel]:
    """diffusers' transformer and ours, with the same weights."""
    torch.manual_seed(0)
    stock = HunyuanVideoTransformer3DModel(**MID | changes).eval()
    ours = copy.deepcopy(stock)
    drop_padding(ours, "native")
    keep_rotary_tables(ours)
    run_in_chunks(ours)
    return stock, ours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7, help="at about 1,000 latent tokens")
    parser.add_argument("--rounds-8k", type=int, default=5, help="at about 8,000; 0 skips them")
    parser.add_argument("--output", type=Path, help=".txt file; a .json file with all numbers is written next to it")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    rows: list[Row] = []
    for name, changes, rounds in (("1k", {}, options.rounds), ("8k", FEWER_BLOCKS, options.rounds_8k)):
        stock, ours = models(changes)
        for text_tokens in TEXT_TOKENS if rounds else ():
            rows.append(measure(stock, ours, SHAPES[name], text_tokens, rounds))
            print(rows[-1], flush=True)
    text = as_text(machine(), rows)
    print(text)
    if options.output is not None:
        options.output.write_text(text)
        content = {"machine": machine(), "1k": MID, "8k": MID | FEWER_BLOCKS, "rows": [asdict(row) for row in rows]}
        options.output.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
