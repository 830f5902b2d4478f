"""The plan's outlook for a request: whether it fits, in which mode, and how long it takes.

Reads configurations and the timings of finished jobs; loads no weights and uses no device memory in this process.
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
    """The outlook for a request.

    Attributes:
        verdict: ``fits``, or ``no`` if no mode does; ``unknown`` if the profile is not one of the plan's modes.
        says: one or more sentences.
        notes: notes on the model for the user.
        modes: names of all modes that fit.
    """

    verdict: Literal["fits", "no", "unknown"]
    says: tuple[str, ...]
    notes: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()


@cache
def this_machine() -> Machine:
    """The machine of this process.

    Queries the GPU in a separate process, since a CUDA context occupies GPU memory for the life of its process.
    """
    if not has_cuda_driver():
        return detect_machine()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(detect_machine).result()


class Planner:
    """Plans requests for one machine; caches plans, since the form asks again after each change.

    Args:
        load_model: returns the config for a model name.
        machine: called for the first plan.
    """

    def __init__(self, load_model: Callable[[str], ModelConfig], machine: Callable[[], Machine] = this_machine):
        self._load_model, self._machine = load_model, machine
        self._plan = lru_cache(_MOST_PLANS)(self._make_plan)

    def look_ahead(self, request: GenerationRequest, name: str, profile: str, finished: Iterable[Job]) -> Outlook:
        """The outlook for a request.

        Args:
            name: the model's name.
            profile: as for ``--profile``.
            finished: succeeded jobs of this model in this profile, for their timings.

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
            return Outlook("no", (f"The profile {profile} needs a GPU, but this machine has none.",), notes, modes)
        if named is not None:
            mode = Mode(named.offload, named.quantization, named.vae_tiling)
            chosen = next((item for item in found.modes if item.mode == mode), None)
        if chosen is None:
            return Outlook("unknown", (f"The plan has no estimate for the profile {profile}.",), notes, modes)
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
    """Names of all modes that a plan considers."""
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
    """The expected duration, from measurements on this machine if there are any, otherwise from the plan."""
    costs = measure(finished)
    same = costs.get(request.width * request.height * request.num_frames)
    if (cost := same or costs.get(0)) is not None:
        took, source = cost.total_of(request), "measured at this size" if same else "scaled from other sizes"
    else:
        assert chosen.seconds is not None  # the mode fits
        if chosen.seconds_range is not None:
            low, high = map(in_words, chosen.seconds_range)
            length, source = (
                in_words(request.num_frames / request.fps),
                "a guess for this GPU, without loading the model",
            )
            return f"About {low} to {high} to generate {length} of video ({source})."
        took, source = chosen.seconds.total, "an estimate, without loading the model"
    return f"About {in_words(took)} to generate {in_words(request.num_frames / request.fps)} of video ({source})."
