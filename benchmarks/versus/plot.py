"""The plot of ``vs_diffusers``, from its JSON file: stages of both scripts, and a step relative to its floor.

Run as ``python -m versus.plot RESULT.json`` to draw it again next to that file.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from .tables import STAGES

# From a colour-blind-safe palette (Okabe and Ito, 2008).
COLOURS = dict(zip(STAGES, ("#999999", "#56B4E9", "#E69F00", "#0072B2", "#D55E00", "#CC79A7"), strict=True))


def draw(result: Path) -> Path:
    """Write ``RESULT.png`` next to ``RESULT.json``; return its path."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = json.loads(result.read_text())
    wide = [name for name, each in found.items() if each["kernels"]]
    figure, axes = pyplot.subplots(
        1, len(found) + len(wide), figsize=(4.2 * (len(found) + len(wide)), 3.4), layout="constrained"
    )
    axes = list(axes) if len(found) + len(wide) > 1 else [axes]
    for axis, (name, each) in zip(axes, found.items(), strict=False):
        _stages(axis, name, each)
    for axis, name in zip(axes[len(found) :], wide, strict=True):
        _over_floor(axis, name, found[name]["kernels"])
    path = result.with_suffix(".png")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return path


def _stages(axis: Any, name: str, found: dict[str, Any]) -> None:
    """One bar per script: median wall seconds, stacked by stage."""
    scripts = ("stock", "ours")
    bottoms = [0.0, 0.0]
    for stage in STAGES:
        heights = [
            statistics.median(run["stages"].get(stage, {}).get("wall_s", 0.0) for run in found["runs"][script])
            for script in scripts
        ]
        axis.bar(scripts, heights, 0.6, bottom=bottoms, label=stage, color=COLOURS[stage])
        bottoms = [below + height for below, height in zip(bottoms, heights, strict=True)]
    request = found["job"]
    axis.set_title(f"{name}, {request['num_inference_steps']} steps: a whole process")
    axis.set_ylabel("wall seconds")
    axis.set_xlim(-0.6, 2.4)
    axis.legend(frameon=False, fontsize="small", loc="upper right", reverse=True)


def _over_floor(axis: Any, name: str, kernels: dict[str, Any]) -> None:
    """One bar per implementation of a step, in units of the floor."""
    ways = list(kernels["over_floor"])
    bars = axis.bar(ways, kernels["over_floor"].values(), 0.6, color=["#999999", "#0072B2", "#56B4E9", "#009E73"])
    axis.bar_label(bars, fmt="%.2f")
    axis.axhline(1, color="black", linewidth=0.8, linestyle=":")
    axis.set_title(f"{name}: a step over its bare kernels")
    axis.tick_params(axis="x", labelsize="small")


def main() -> None:
    """Draw the plot of a result."""
    print(draw(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
