"""``mid``: a checkpoint in which the transformer takes nearly all of the time, as in the 13 B model.

The transformer has 177 M random parameters: heads of 128 as in the 13 B model, a fifth of its blocks and a quarter of
its width. All other components are those of the built-in checkpoint. Its videos are noise, which does not affect speed.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from gpu_check.checkpoint import on_meta, write_component

from hunyuan_local.config import load_model_config

HEADS, HEAD_DIM, DUAL, SINGLE, REFINER = 6, 128, 4, 8, 2
CHANGES = {
    "num_attention_heads": HEADS,
    "attention_head_dim": HEAD_DIM,
    "num_layers": DUAL,
    "num_single_layers": SINGLE,
    "num_refiner_layers": REFINER,
    "rope_axes_dim": [16, 56, 56],
}


def provide(work_dir: Path, changes: dict[str, object] = CHANGES) -> Path:
    """The folder of the checkpoint, created if needed; the weights are the same every time."""
    tiny, folder = load_model_config("tiny").folder, work_dir / "mid"
    if (folder / "transformer").is_dir():
        return folder
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(tiny, partial, ignore=shutil.ignore_patterns("transformer"))
    config = json.loads((tiny / "transformer" / "config.json").read_text()) | changes
    write_component(on_meta("transformer", config), "float32", partial / "transformer")
    partial.rename(folder)
    return folder
