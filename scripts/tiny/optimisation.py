"""Shared by all training stages: precision, optimisers, learning-rate schedule, logging, saving and resuming."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from hunyuan_local.pipeline.memory.device import cpu_has_bfloat16


def autocast() -> torch.autocast:
    """Mixed precision in bfloat16; float32 on processors that only emulate bfloat16, which is many times slower."""
    return torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_bfloat16())


class Float32Muon(torch.optim.Muon):
    """torch's Muon with its matrix products in float32.

    torch computes them in bfloat16, which takes many times longer where a processor only emulates it.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update with Nesterov momentum and without weight decay, as ``torch.optim.Muon`` does it."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                buffer = self.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
                buffer.lerp_(parameter.grad, 1 - group["momentum"])
                update = parameter.grad.lerp(buffer, group["momentum"])
                rows, columns = parameter.shape
                rate = group["lr"] * math.sqrt(max(1, rows / columns))
                parameter.add_(_orthogonal(update, group["ns_coefficients"], group["ns_steps"]), alpha=-rate)


def _orthogonal(matrix: torch.Tensor, coefficients: tuple[float, float, float], steps: int) -> torch.Tensor:
    """The nearest semi-orthogonal matrix, roughly: the Newton-Schulz iteration of ``torch.optim.Muon``."""
    a, b, c = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp_min(1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


class Optimiser:
    """Muon for the weights of matrices and convolutions, AdamW for everything else.

    torch's Muon takes two-dimensional parameters only, so each kernel has a flat twin
    ``[out, in * taps]`` that is updated in its place. With ``newest_tap_only`` the twin holds the
    last temporal tap of a 3-D kernel alone, and the other taps stay as they are.
    """

    def __init__(
        self,
        muon: Iterable[nn.Parameter],
        adamw: Iterable[nn.Parameter],
        *,
        muon_lr: float,
        adamw_lr: float,
        newest_tap_only: bool = False,
    ):
        self.kernels = list(muon)
        self.others = list(adamw)
        self.newest_tap_only = newest_tap_only
        self.flat = [nn.Parameter(self._flatten(p.data)) for p in self.kernels]
        muon_class = torch.optim.Muon if cpu_has_bfloat16() else Float32Muon
        self.muon = muon_class(self.flat, lr=muon_lr, weight_decay=0.0, momentum=0.95)
        self.adamw = torch.optim.AdamW(self.others, lr=adamw_lr, betas=(0.9, 0.98), weight_decay=0.0)
        self.rates = ((self.muon, muon_lr), (self.adamw, adamw_lr))

    def step(self, scale: float, clip: float) -> None:
        """Apply one update at ``scale`` times the base rates, gradients clipped to norm ``clip``."""
        nn.utils.clip_grad_norm_(self.kernels + self.others, clip, error_if_nonfinite=True)
        for kernel, flat in zip(self.kernels, self.flat, strict=True):
            flat.grad = None if kernel.grad is None else self._flatten(kernel.grad)
        for optimiser, base_rate in self.rates:
            for group in optimiser.param_groups:
                group["lr"] = base_rate * scale
            optimiser.step()
        for kernel, flat in zip(self.kernels, self.flat, strict=True):
            part = self._part(kernel.data)
            part.copy_(flat.data.view(part.shape))
        for parameter in self.kernels + self.others:
            parameter.grad = None

    def state_dict(self) -> dict:
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Restore the moments; restore the parameters first."""
        self.muon.load_state_dict(state["muon"])
        self.adamw.load_state_dict(state["adamw"])
        for kernel, flat in zip(self.kernels, self.flat, strict=True):
            flat.data.copy_(self._flatten(kernel.data))

    def _part(self, kernel: torch.Tensor) -> torch.Tensor:
        return kernel[:, :, -1:] if self.newest_tap_only else kernel

    def _flatten(self, kernel: torch.Tensor) -> torch.Tensor:
        return self._part(kernel).reshape(kernel.shape[0], -1).clone()


def rate(step: int, steps: int, warm_up: int = 40, hold: float = 0.4, final: float = 0.015) -> float:
    """Learning-rate factor: short warm-up, constant up to ``hold``, then linear down to ``final``."""
    if step < warm_up:
        return (step + 1) / warm_up
    position = step / max(1, steps)
    return 1.0 if position < hold else 1.0 - (1.0 - final) * (position - hold) / (1.0 - hold)


def average(target: nn.Module, source: nn.Module, step: int, decay: float = 0.995) -> None:
    """Move ``target`` towards ``source``: an exponential moving average with a quick start."""
    weight = min(decay, (step + 1) / (step + 10))
    with torch.no_grad():
        for averaged, current in zip(target.parameters(), source.parameters(), strict=True):
            averaged.lerp_(current, 1 - weight)


def save_atomically(state: object, path: Path) -> None:
    """Write atomically with torch.save: a killed run leaves either the old file or the new one."""
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def run_stage(
    name: str,
    steps: int,
    work_dir: Path,
    modules: dict[str, nn.Module],
    optimiser: Optimiser,
    loss_of_step: Callable[[int], torch.Tensor],
    *,
    plan: dict[str, object],
    clip: float = 1.0,
    rate_from: int = 0,
    after_step: Callable[[int], None] = lambda step: None,
    save_seconds: float = 120.0,
) -> None:
    """Train up to step ``steps``, logging to ``<name>.jsonl`` and resuming from ``<name>.pt``.

    Every step draws its data from its own number, so a resumed run sees the same clips as an
    undisturbed one. The learning rate's schedule runs from step ``rate_from`` to ``steps``.

    Args:
        plan: what the result depends on (seed, rates, sizes), as JSON values. The state keeps it.
        save_seconds: least time between two saved states; SIGTERM saves one at once and ends the process.

    Raises:
        FloatingPointError: a loss is not finite.
        ValueError: the state in ``work_dir`` was made under another plan.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    state_path = work_dir / f"{name}.pt"
    plan = json.loads(json.dumps(plan | {"steps": steps, "rate_from": rate_from}))
    start = 0
    if state_path.exists():
        state = torch.load(state_path, weights_only=True)
        start = state["step"]
        if start > rate_from and start < steps and state["plan"] != plan:
            raise ValueError(f"{state_path} has the plan {state['plan']}, not {plan}: use another work directory")
        for key, module in modules.items():
            module.load_state_dict(state[key])
        if start < steps:
            optimiser.load_state_dict(state["optimiser"])
    if start >= steps:
        return

    def save(done: int) -> None:
        state = {key: module.state_dict() for key, module in modules.items()}
        save_atomically(state | {"step": done, "optimiser": optimiser.state_dict(), "plan": plan}, state_path)

    began = saved = time.monotonic()
    running = math.nan
    with (work_dir / f"{name}.jsonl").open("a") as log, _termination() as terminated:
        for step in range(start, steps):
            loss = loss_of_step(step)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"{name}: the loss is {loss.item()} at step {step}")
            loss.backward()
            optimiser.step(rate(step - rate_from, steps - rate_from), clip)
            after_step(step)
            running = loss.item() if math.isnan(running) else 0.97 * running + 0.03 * loss.item()
            done = step + 1
            if done % 25 == 0 or done == steps:
                seconds = (time.monotonic() - began) / (done - start)
                log.write(json.dumps({"step": done, "loss": round(running, 5), "seconds_per_step": round(seconds, 3)}))
                log.write("\n")
                log.flush()
                print(f"{name} {done}/{steps} loss {running:.5f} {seconds:.2f} s/step", flush=True)
            if done == steps or terminated or time.monotonic() - saved > save_seconds:
                save(done)
                saved = time.monotonic()
            if terminated:
                raise SystemExit(f"{name}: saved at step {done} of {steps}; run the same command again to resume")


@contextmanager
def _termination() -> Iterator[list[int]]:
    """Collect SIGTERM, so that a stage can save before it ends; empty until one arrives."""
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)
