"""What the plan says of a request before anything runs: whether it fits, in which mode, and how long it takes.

Reads configurations and the times of finished jobs; loads no weight and takes no device memory in this process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from multiprocessing import get_context
from typing import Any, Literal

from ..backends.local.profile_choice import named_profile
from ..config import ModelConfig
from ..durations import in_words
from ..errors import HunyuanLocalError
from ..jobs.eta import measure
from ..jobs.job import Job
from ..planner import Machine, Mode, ModePlan, Plan, detect_machine, plan
from ..planner.machine import has_cuda_driver
from ..planner.modes import all_modes
from ..planner.result import gib
from ..resolved import FilledRequest
from ..schema import GenerationRequest
from ..weights.licence import notices_of

_MOST_PLANS = 256


@dataclass(frozen=True)
class Outlook:
    """What can be said of a request beforehand.

    Attributes:
        verdict: whether it ``fits``, or ``no`` mode does; ``unknown`` where the profile is none of the plan's modes.
        says: one sentence or more.
        notes: what the user should know of the model.
        modes: names of all modes that fit.
    """

    verdict: Literal["fits", "no", "unknown"]
    says: tuple[str, ...]
    notes: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()


@cache
def this_machine() -> Machine:
    """The machine of this process.

    A GPU is asked for by a process of its own, since that takes some of its memory for as long as the process lives.
    """
    if not has_cuda_driver():
        return detect_machine()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(detect_machine).result()


class Planner:
    """Plans for one machine; those made last are kept, since a form is changed field by field.

    Args:
        load_model: the config of a model's name.
        machine: asked for at the first plan.
    """

    def __init__(self, load_model: Callable[[str], ModelConfig], machine: Callable[[], Machine] = this_machine):
        self._load_model, self._machine = load_model, machine
        self._plan = lru_cache(_MOST_PLANS)(self._make_plan)

    def look_ahead(self, request: GenerationRequest, name: str, profile: str, finished: Iterable[Job]) -> Outlook:
        """The outlook of a request.

        Args:
            name: of the model.
            profile: as ``--profile`` takes it.
            finished: jobs of this model in this profile that have succeeded, for their times.

        Raises:
            HunyuanLocalError: the model's config or the profile cannot be read.
        """
        model = self._load_model(name)
        request = FilledRequest.of(request, dict(model.defaults))
        named = named_profile(profile)
        doubled = request.true_cfg_scale > 1 and bool(request.negative_prompt)
        found = self._plan(
            name, named is not None and named.device == "cpu",
            request.width, request.height, request.num_frames, request.num_inference_steps, doubled,
        )  # fmt: skip
        modes = tuple(item.name for item in found.modes if item.fits)
        notes = (*_scaling(found), *notices_of(model))
        try:
            chosen: ModePlan | None = found.require_choice()
        except HunyuanLocalError as error:
            return Outlook("no", (f"Does not fit. {error}.",), notes, modes)
        if named is not None and named.device == "cuda" and found.machine.gpu_memory_bytes is None:
            return Outlook("no", (f"The profile {profile} is for a GPU, and this machine has none.",), notes, modes)
        if named is not None:
            mode = Mode(named.offload, named.quantization, named.vae_tiling)
            chosen = next((item for item in found.modes if item.mode == mode), None)
        if chosen is None:
            return Outlook("unknown", (f"The plan does not weigh the profile {profile}.",), notes, modes)
        if not chosen.fits:
            return Outlook("no", (f"The profile {profile} does not fit: {chosen.reason}.",), notes, modes)
        return Outlook("fits", (_fits(found, chosen), _time(request, chosen, finished)), notes, modes)

    def _make_plan(
        self, name: str, on_cpu: bool, width: int, height: int, num_frames: int, steps: int, doubled: bool
    ) -> Plan:
        guidance: dict[str, Any] = {"true_cfg_scale": 2.0, "negative_prompt": "any"} if doubled else {}
        request = GenerationRequest(
            prompt="any", width=width, height=height, num_frames=num_frames, num_inference_steps=steps, **guidance
        )
        machine = self._machine()
        if on_cpu:
            machine = Machine(None, machine.host_memory_bytes, libraries=machine.libraries)
        return plan(request, self._load_model(name), machine)


def mode_names() -> list[str]:
    """Every mode that a plan weighs."""
    return [mode.name for mode in all_modes()]


def _scaling(found: Plan) -> Iterable[str]:
    asked = (found.request.width, found.request.height)
    if found.render_size != asked:
        width, height = found.render_size
        yield f"{found.model} renders at {width}x{height}; the encoder scales up to {asked[0]}x{asked[1]}."


def _fits(found: Plan, chosen: ModePlan) -> str:
    machine = found.machine
    if machine.gpu_memory_bytes is not None:
        title = "the GPU" if machine.gpu is None else machine.gpu.title
        need = f"{gib(chosen.needed_gpu_bytes)} of {gib(machine.gpu_memory_bytes)} of GPU memory"
        return f"Fits on {title}: {need}, mode {chosen.name}."
    have = "" if machine.host_memory_bytes is None else f" of {gib(machine.host_memory_bytes)}"
    return f"Fits on the CPU: {gib(chosen.host_peak_bytes)}{have} of main memory, mode {chosen.name}."


def _time(request: FilledRequest, chosen: ModePlan, finished: Iterable[Job]) -> str:
    """How long it takes; what was measured here is worth more than an estimate."""
    costs = measure(finished)
    same = costs.get(request.width * request.height * request.num_frames)
    if (cost := same or costs.get(0)) is not None:
        took, source = cost.total_of(request), "as the last of this size" if same else "reckoned from other sizes"
    else:
        assert chosen.seconds is not None  # it fits
        took, source = chosen.seconds.total, "an estimate, without loading the model"
    return f"About {in_words(took)} to make {in_words(request.num_frames / request.fps)} of video ({source})."
