"""Estimates how long a batch of videos takes on several cards: one video per card, or each video over all cards.

``plan_batch`` compares both in every mode, from configurations alone. Knows nothing about files and processes.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ..config import ModelConfig, RuntimeProfile
from ..config.tiling import UNTILED
from ..errors import ConfigError, GpuMemoryError
from ..resolved import FilledRequest
from ..schema import TEMPORAL_COMPRESSION, GenerationRequest
from .assumptions import of_batch
from .checkpoint import read_architecture
from .machine import Machine
from .modes import OFFLOADS, Mode
from .plan import plan, weigh
from .result import ModePlan, Plan, as_fast, gib
from .time_estimate import DISK_GBS, Seconds

# ``one-at-a-time``: one card, each video from prompt to frames; ``staged``: one card, all prompts first; ``replicas``:
# like staged, on each card with a separate copy of the model; ``context-parallel``: each video over all cards.
Strategy = Literal["one-at-a-time", "staged", "replicas", "context-parallel"]
# Plainest first: the plainest of equally fast strategies is recommended.
STRATEGIES: tuple[Strategy, ...] = ("one-at-a-time", "staged", "replicas", "context-parallel")
# Limit for the cards of one machine; a plan is for one machine.
MOST_CARDS = 64
MOST_VIDEOS = 1_000_000


@dataclass(frozen=True)
class BatchSeconds:
    """A batch's time in seconds, in the order of the work.

    Attributes:
        load: reading the files, for all cards together, making page-locked copies of streamed weights, and compiling.
        encode: encoding the prompts of one card; for ``one-at-a-time``, one prompt before each video.
        videos: denoising and decoding, all rounds.
        first: from the start to the first video's last frame.
        each: latency of one video with its prompt encoded and the model loaded.
    """

    load: float
    encode: float
    videos: float
    first: float
    each: float

    @property
    def total(self) -> float:
        """From the start to the last frame of the last video."""
        return self.load + self.encode + self.videos


@dataclass(frozen=True)
class BatchOption:
    """One strategy in one mode.

    Attributes:
        strategy: how the cards share the work.
        plan: the mode on one of the cards; its ``host_peak_bytes`` is for one process.
        cards: number of cards in use; replicas without a video stay idle.
        rounds: videos that each card generates, one after another.
        host_bytes: main memory of all processes together.
        seconds: an estimate; None if the mode cannot run.
        reason: why it does not fit; None if it does.
    """

    strategy: Strategy
    plan: ModePlan
    cards: int
    rounds: int
    host_bytes: int
    seconds: BatchSeconds | None
    reason: str | None

    @property
    def fits(self) -> bool:
        """Whether the machine can run it."""
        return self.reason is None

    def to_json(self) -> dict[str, Any]:
        """One entry of ``options`` in ``BatchPlan.to_json``; sizes in bytes, times in seconds."""
        seconds = None
        if self.seconds is not None:
            seconds = {name: round(value, 1) for name, value in asdict(self.seconds).items()}
            seconds["total"] = round(self.seconds.total, 1)
        return {
            "strategy": self.strategy,
            "mode": self.plan.name,
            "cards": self.cards,
            "rounds": self.rounds,
            "gpu_peak_bytes": self.plan.gpu_peak_bytes,
            "needed_gpu_bytes": self.plan.needed_gpu_bytes,
            "host_bytes": self.host_bytes,
            "stage_peaks": {stage: asdict(peak) for stage, peak in self.plan.peaks.items()},
            "seconds": seconds,
            "fits": self.fits,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class BatchPlan:
    """Every strategy in every mode.

    Attributes:
        single: the plan of one video on one card.
        num_gpus: number of cards; None plans for the CPU.
        videos: number of videos.
        options: mode by mode, in the order of ``STRATEGIES``.
        assumptions: assumptions behind the times, in addition to those of ``single``, as text.
    """

    single: Plan
    num_gpus: int | None
    videos: int
    options: tuple[BatchOption, ...]
    assumptions: tuple[str, ...]

    @property
    def choice(self) -> BatchOption | None:
        """The fastest option that fits; of those that differ by less than the estimate's accuracy, the plainest."""
        fitting = [(option, option.seconds) for option in self.options if option.fits and option.seconds is not None]
        if not fitting:
            return None
        limit = as_fast(min(seconds.total for _, seconds in fitting))
        return min((timed for timed in fitting if timed[1].total <= limit), key=_plainness)[0]

    def best(self, strategy: Strategy) -> BatchOption | None:
        """The best option of one strategy, chosen like ``choice``."""
        return BatchPlan(self.single, self.num_gpus, self.videos, self.of(strategy), ()).choice

    def of(self, strategy: Strategy) -> tuple[BatchOption, ...]:
        """All options of one strategy."""
        return tuple(option for option in self.options if option.strategy == strategy)

    def require_choice(self) -> BatchOption:
        """The choice, or an error if there is none.

        Raises:
            GpuMemoryError: nothing fits; names requests that would fit on one card, or the missing main memory.
            ConfigError: the machine cannot run the model in any mode.
        """
        if self.choice is None:
            self.single.require_choice()
            least = min(option.plan.host_peak_bytes for option in self.options if option.seconds is not None)
            have = self.single.machine.host_memory_bytes
            assert have is not None  # only main memory can rule out a mode that fits on one card
            raise GpuMemoryError(
                f"num_gpus={self.num_gpus}: each card's process needs at least {gib(least)} of host memory, and the "
                f"machine has {gib(have)}; use fewer cards (--num-gpus {have // least})"
            )
        return self.choice

    def to_json(self) -> dict[str, Any]:
        """Everything but ``single``; sizes in bytes, times in seconds."""
        choice = self.choice
        return {
            "num_gpus": self.num_gpus,
            "videos": self.videos,
            "options": [option.to_json() for option in self.options],
            "choice": None if choice is None else {"strategy": choice.strategy, "mode": choice.plan.name},
            "assumptions": list(self.assumptions),
        }


def plan_batch(
    request: GenerationRequest, model: ModelConfig, machine: Machine, num_gpus: int | None = None, videos: int = 1
) -> BatchPlan:
    """Compare every way to generate ``videos`` videos like this request's.

    Args:
        request: the request of each video; missing fields get the model's defaults.
        model: which checkpoint.
        machine: the machine with one of its cards; its main memory is shared by all processes.
        num_gpus: number of such cards; None for one, or for the CPU if the machine has no GPU.
        videos: number of videos.

    Raises:
        ConfigError: a number is out of range, or ``num_gpus`` is given for a machine without a GPU.
        ModelLoadError: as for ``plan``.
    """
    _check("num_gpus", num_gpus, MOST_CARDS, "the cards of one machine; plan each machine separately")
    _check("videos", videos, MOST_VIDEOS, "the videos of the batch")
    if num_gpus is not None and machine.device == "cpu":
        raise ConfigError(
            f"num_gpus={num_gpus}: this plan is for a CPU, where parallel processes would only share its cores; "
            "name the card (--gpu 4090), or omit --num-gpus"
        )
    cards = num_gpus or 1
    # Each process compiles for its own videos.
    single = plan(request, model, machine, videos=math.ceil(videos / cards))
    load = sum(weights.bytes for weights in single.weights) / (DISK_GBS * 1e9)
    options: list[BatchOption] = []
    together = single.modes
    if cards > 1:
        frames = single.request.num_frames
        together = tuple(
            replace(mode, seconds=mode.seconds and _with_shared_decoding(mode.seconds, frames, cards))
            for mode in plan(request, model, machine, cards=cards).modes
        )
    for mode, shared in zip(single.modes, together, strict=True):
        if cards == 1:
            options += [_option(strategy, mode, 1, videos, load, machine) for strategy in STRATEGIES[:2]]
        else:
            options += [
                _option("replicas", mode, cards, videos, load, machine),
                _option("context-parallel", shared, cards, videos, load, machine),
            ]
    heads = read_architecture(model).transformer.num_attention_heads
    saved = single.modes[0].peaks["denoise"].gpu_bytes - together[0].peaks["denoise"].gpu_bytes
    return BatchPlan(single, num_gpus, videos, tuple(options), tuple(of_batch(machine, heads, cards, videos, saved)))


def seconds_of(
    request: GenerationRequest, model: ModelConfig, machine: Machine, run: Mode | RuntimeProfile, cards: int = 1
) -> Seconds:
    """Estimate the seconds of one request in a given mode, for batches of different requests; see ``makespan``.

    Args:
        request: missing fields get the model's defaults.
        model: which checkpoint.
        machine: the machine; a CPU profile ignores its GPU.
        run: a mode, or a profile, whose device, offload, precision and tiling count. Its settings for single components
            and its step cache are ignored.
        cards: number of cards that split the video (context parallel).

    Returns:
        Seconds by stage; ``encode - visit`` is the time to encode a prompt while the text encoders are on the GPU.

    Raises:
        ConfigError: the machine cannot run this mode, regardless of its memory.
    """
    _check("cards", cards, MOST_CARDS, "the cards of one machine")
    if named := isinstance(run, RuntimeProfile):
        if run.device == "cpu":
            machine = Machine(None, machine.host_memory_bytes, libraries=machine.libraries)
        run = Mode(run.offload, run.quantization, run.vae_tiling)
    found = weigh(request, model, machine, run, cards, as_named=named)
    if found.seconds is None:
        raise ConfigError(f"mode={run.name!r}: {found.reason}; 'hunyuan-local plan' lists the possible modes")
    return _with_shared_decoding(found.seconds, FilledRequest.of(request, dict(model.defaults)).num_frames, cards)


def makespan(seconds: Sequence[float], replicas: int) -> float:
    """Seconds until the last video is done, if each video in order goes to the first free replica.

    Raises:
        ConfigError: fewer than one replica.
    """
    _check("replicas", replicas, MOST_VIDEOS, "at least one")
    free = [0.0] * min(replicas, max(1, len(seconds)))
    for item in seconds:
        heapq.heapreplace(free, free[0] + item)
    return max(free)


def _with_shared_decoding(seconds: Seconds, num_frames: int, cards: int) -> Seconds:
    """Decode in rounds of one temporal tile per card: ``decode * ceil(tiles / cards) / tiles`` seconds."""
    tiles = len(UNTILED.lengths((num_frames - 1) // TEMPORAL_COMPRESSION + 1))
    return replace(seconds, decode=seconds.decode * math.ceil(tiles / cards) / tiles)


def _check(name: str, value: int | None, most: int, what: str) -> None:
    """Reject a number out of range; None means not given."""
    if value is not None and not 1 <= value <= most:
        raise ConfigError(f"{name}={value}: must be from 1 to {most:,}, {what}")


def _option(strategy: Strategy, mode: ModePlan, cards: int, videos: int, load: float, machine: Machine) -> BatchOption:
    together = strategy == "context-parallel"
    working = cards if together else min(cards, videos)
    rounds = videos if together else math.ceil(videos / cards)
    host = mode.host_peak_bytes * working
    reason = mode.reason
    if reason is None and machine.host_memory_bytes is not None and host > machine.host_memory_bytes:
        reason = (
            f"{working} processes need {gib(host)} of host memory; the machine has {gib(machine.host_memory_bytes)}"
        )
    seconds = None
    if mode.seconds is not None:
        seconds = _seconds(strategy, mode.seconds, rounds, load + mode.seconds.pinning + mode.seconds.compiling)
    return BatchOption(strategy, mode, working, rounds, host, seconds, reason)


def _seconds(strategy: Strategy, one: Seconds, rounds: int, load: float) -> BatchSeconds:
    """The batch's time from one video's; each card generates ``rounds`` videos."""
    each = one.denoise + one.decode
    if strategy == "one-at-a-time":
        return BatchSeconds(load, one.encode * rounds, each * rounds, load + one.encode + each, each)
    encode = one.visit + (one.encode - one.visit) * rounds
    return BatchSeconds(load, encode, each * rounds, load + encode + each, each)


def _plainness(timed: tuple[BatchOption, BatchSeconds]) -> tuple[bool, int, int, bool, float]:
    option, seconds = timed
    mode = option.plan.mode
    return (
        mode.quantization is not None, STRATEGIES.index(option.strategy), OFFLOADS.index(mode.offload),
        mode.vae_tiling, seconds.total,
    )  # fmt: skip
