"""Made-up results of benches, covering everything that a report must handle."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from hunyuan_local.bench.results.result import BenchResult, BenchRun, Stages, Target
from hunyuan_local.schema import GenerationRequest, VideoInfo

LOCAL = Target(
    label="local",
    backend="local",
    origin="measured on this machine",
    identity="tiny sha256:0123",
    device="cpu",
    profile="cpu",
    model="tiny",
)
OWN_SERVER = Target(
    label="wavespeed at http://127.0.0.1:8000",
    backend="wavespeed",
    origin="a server at http://127.0.0.1:8000 in WaveSpeed's format, not the service",
    base_url="http://127.0.0.1:8000",
    identity="wavespeed http://127.0.0.1:8000",
)
SERVICE = Target(
    label="novita",
    backend="novita",
    origin="the service itself, at https://api.novita.ai, over the network",
    base_url="https://api.novita.ai",
    is_billed=True,
    identity="novita https://api.novita.ai",
)
CARD: dict[str, Any] = {
    "date": "2026-01-02T03:04:05+00:00",
    "gpu": None,
    "cpu": {"model": "Example CPU 9000", "cores": 2},
    "host_memory_bytes": 16 * 2**30,
    "versions": {"hunyuan-local": "0.1.0", "torch": "2.13.0"},
    "libraries": ["torchao"],
}


def made_run(
    target: Target = LOCAL,
    total_s: float | None = 10.0,
    *,
    prompt: str = "a red circle",
    scenario: str = "circle",
    size: tuple[int | None, int | None] = (256, 160),
    frames: int | None = 17,
    steps: int | None = 10,
    seed: int | None = 1,
    repeat: int = 0,
    true_cfg_scale: float = 1.0,
    **fields: Any,
) -> BenchRun:
    """A run that succeeded, unless ``fields`` override it; a tenth of its time is between the stages."""
    request = GenerationRequest(
        prompt=prompt,
        width=size[0],
        height=size[1],
        num_frames=frames,
        num_inference_steps=steps,
        seed=seed,
        true_cfg_scale=true_cfg_scale,
    )
    given: dict[str, Any] = {
        "backend": target.label,
        "scenario": scenario,
        "request": request,
        "repeat": repeat,
        "status": "succeeded",
        "started_at": "2026-01-02T03:04:05+00:00",
    }
    if fields.get("status", "succeeded") == "succeeded":
        made = request.with_defaults({"width": 256, "height": 160, "num_frames": 17, "num_inference_steps": 30})
        video = VideoInfo(made.width, made.height, made.num_frames, 24.0, made.num_frames / 24, "h264", "yuv420p")
        given |= {"made": made, "video": video, "stages": made_stages(target, total_s)}
        if target.base_url is None:
            given |= {"peak_memory_bytes": 3 * 2**29, "memory_of": "process"}
        if total_s is not None:
            given["seconds_per_step"] = 0.8 * total_s / made.num_inference_steps
    return BenchRun(**(given | fields))


def made_stages(target: Target, total_s: float | None) -> Stages:
    """Stages as fractions of the total: those of the local pipeline, or of a service."""
    if total_s is None:
        return Stages()
    if target.base_url is None:
        shares = {"load_s": 0.0, "encode_s": 0.02, "denoise_s": 0.7, "decode_s": 0.15, "write_s": 0.03}
    else:
        shares = {"submit_s": 0.03, "queue_s": 0.1, "run_s": 0.62, "poll_s": 0.05, "download_s": 0.1}
    return Stages(total_s=total_s, **{name: share * total_s for name, share in shares.items()})


def failed_run(target: Target = LOCAL, error: str = "the GPU's memory does not hold it", **fields: Any) -> BenchRun:
    """A run that failed."""
    return made_run(target, status="failed", error=error, error_kind="GpuMemoryError", **fields)


def made_result(runs: Sequence[BenchRun], targets: Sequence[Target] = (LOCAL,), **fields: Any) -> BenchResult:
    """A complete bench with these runs."""
    given: dict[str, Any] = {
        "name": "made-up",
        "created_at": "2026-01-02T03:04:05+00:00",
        "finished_at": "2026-01-02T04:04:05+00:00",
        "machine": CARD,
        "scenarios": {"name": "made-up", "repeats": 3, "scenarios": [{"name": "circle", "prompts": ["a red circle"]}]},
        "repeats": 3,
        "targets": list(targets),
        "runs": list(runs),
        "is_complete": True,
    }
    return BenchResult(**(given | fields))


def full_result() -> BenchResult:
    """One target of each kind, with three sizes, step counts and repeats, and every kind of failure."""
    rng = random.Random(1)
    targets = (LOCAL, OWN_SERVER, SERVICE)
    runs = [made_run(target, 30.0, kind="warmup", steps=2) for target in targets]
    for repeat in range(3):
        for size, frames in (((256, 160), 17), ((320, 192), 17), ((512, 320), 33)):
            for steps in (2, 10, 30):
                for i, target in enumerate(targets):
                    whole = size[0] * size[1] * frames / 7e5 * (1.5 + 0.4 * steps) * (1, 1.2, 0.5)[i] + (0, 1, 4)[i]
                    cost = (1e-5 * whole, None, 0.2)[i]
                    fields = {"cost_usd": cost, "cost_source": ("electricity", "", "the price list")[i]}
                    fields |= {"size": size, "frames": frames, "steps": steps, "repeat": repeat}
                    runs.append(made_run(target, whole * rng.uniform(0.95, 1.05), **fields))
    runs.append(failed_run(SERVICE, "429: too many requests\nwait | 3 s <b>", repeat=3))
    runs.append(made_run(SERVICE, status="interrupted", repeat=4, notes=["resumed after a stop"]))
    return made_result(runs, targets)


def large_result(groups: int = 100) -> BenchResult:
    """``groups`` groups of two targets, with many sizes, steps and scenarios."""
    rng = random.Random(2)
    runs = []
    for i in range(groups // 2):
        size = (144 + 16 * (i % 10), 80 + 16 * (i % 7))
        fields = {"scenario": f"scenario-{i % 3}", "size": size, "frames": 5 + 4 * (i % 4), "steps": 2 + i % 25}
        for target in (LOCAL, OWN_SERVER):
            runs += [made_run(target, rng.uniform(1, 3) * (1 + i), repeat=n, cost_usd=0.01, **fields) for n in range(2)]
    return made_result(runs, (LOCAL, OWN_SERVER))


def hard_result() -> BenchResult:
    """Names, prompts and errors that could break a page, and numbers of every size."""
    target = LOCAL.model_copy(update={"label": "a very long label " * 6 + "| $x$ <script>`\u72d0`"})
    other = OWN_SERVER.model_copy(update={"label": "_other_ \u202e *bold* [x](http://example.org)"})
    scenario = "\u72d0\u72f8 | `pipe` $\\alpha$ <img src=x> " + "long " * 20
    prompt = (
        "\u4e00\u53ea\u72d0\u72f8 \U0001f98a\u200d e\u0301 \u0627\u0644\u062b\u0639\u0644\u0628 " * 40
        + "<script>alert(1)</script> | \\| `` ` $1$"
    )
    runs = [
        made_run(target, 1e12, prompt=prompt, scenario=scenario, cost_usd=1e15, peak_memory_bytes=10**18),
        made_run(target, 1e-7, prompt=prompt, scenario=scenario, cost_usd=1e-12, repeat=1),
        made_run(
            other, 3.0, scenario="x", size=(None, None), frames=None, steps=None, seed=None, losses=["fps | lost"]
        ),
        failed_run(
            other, "line one\n\n# line two\n| a | b |\n|---|---|\n<b>x</b>\x00\x1b[31m \\| `code`", prompt=prompt
        ),
        failed_run(target, "x" * 5000, scenario=scenario, prompt=prompt),
    ]
    return made_result(runs, (target, other), name="hard | `name` $1$ <b> \u202e")
