"""Generates one video on several GPUs of this machine, with one process (rank) per GPU.

This module checks requests before any process is started; the ranks (:mod:`.rank`) do the work. They keep the model
loaded for the next request.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ...capabilities import Capabilities
from ...config import ContextParallel, LoraConfig, ModelConfig, RuntimeProfile
from ...durable import sweep
from ...planner import Machine
from ...resolved import ResolvedRequest
from ...schema import GenerationRequest, GenerationResult, Progress
from ..base import Explanation, GenerationContext
from ..begin import OneAtATime, begin
from ..local.backend import LocalBackend
from ..local.profile_choice import Choice
from ..prompt_rewriting import PromptRewriter
from .command import Command
from .devices import available_machine
from .launcher import RankGroup
from .limits import check_degree
from .messages import Message

# Stages in which Ctrl-C lets the ranks stop together. In other stages they are killed.
_STOPS_IN_A_STEP = ("denoise", "decode", "write")


class ParallelBackend:
    """Runs HunyuanVideo with diffusers on several local GPUs, or in several processes on a CPU.

    This process creates no CUDA context, so that the GPUs' memory belongs to the ranks.

    The frames equal those of one process up to the order of floating-point additions. There is no out-of-memory
    fallback: running out of memory ends the run.

    Args:
        shared: the number of ranks, and how they split attention.
        model, profile, revision, lora, cache: see :class:`~hunyuan_local.backends.local.backend.LocalBackend`; each
            rank runs in this profile.

    Raises:
        ConfigError: see :class:`~hunyuan_local.backends.local.backend.LocalBackend`.
    """

    name = "local"
    is_paid, keeps_state = False, True

    def __init__(
        self,
        shared: ContextParallel,
        model: str | ModelConfig | None = None,
        profile: str | RuntimeProfile | None = None,
        revision: str | None = None,
        lora: Sequence[LoraConfig] = (),
        cache: str | None = None,
    ):
        self.shared = shared
        self._local = LocalBackend(model, profile, revision, lora, cache)
        self._prompt_rewriter = PromptRewriter()
        self._one_at_a_time = OneAtATime()
        self._group: RankGroup | None = None
        self._profile: RuntimeProfile | None = None
        # As it was before the ranks started: later, most of the memory that is in use is theirs.
        self._machine: Machine | None = None
        self._device = "not loaded"
        self._memory: dict[int, tuple[int, int]] = {}
        self._stage = "load"

    @property
    def pids(self) -> list[int]:
        """Process ids in order of rank; empty if no ranks are running."""
        return [] if self._group is None else [pid for _, pid in sorted(self._group.pids.items())]

    @property
    def config(self) -> ModelConfig:
        """The model."""
        return self._local.config

    @property
    def profile(self) -> RuntimeProfile | None:
        """The profile that the user named; None if the plan chooses one per request."""
        return self._local.profile

    @property
    def identity(self) -> str:
        """Identity of the model."""
        return self.config.identity

    @property
    def capabilities(self) -> Capabilities:
        """The same as those of the local backend."""
        return self._local.capabilities

    @property
    def device(self) -> str:
        """Number and name of the devices; ``not loaded`` until the model is loaded."""
        return self._device if self._profile is None else f"{self.shared.degree} x {self._device}"

    def memory(self) -> tuple[int, int] | None:
        """Peak and total memory in bytes of the device with the highest peak; None if it is not measured."""
        return max(list(self._memory.values()), default=None)

    def explain(self, request: GenerationRequest) -> Explanation:
        """The same as for the local backend."""
        return self._local.explain(request)

    def resolve(self, request: GenerationRequest) -> ResolvedRequest:
        """The request with the model's defaults, and a random seed if it has none."""
        return self._local.resolve(request)

    def load(self, context: GenerationContext | None = None) -> None:
        """Start the ranks and load the model for requests of the default size, unless it is loaded.

        Raises:
            HunyuanLocalError: see :meth:`generate`.
        """
        context = context or GenerationContext()
        with self._one_at_a_time:
            self._check_model()
            choice = self._choose(self.resolve(GenerationRequest(prompt="any")))
            choice.announce(context.on_note)
            self._command("load", {}, choice.profile, context, context.on_note)

    def _check_model(self) -> None:
        """Check the model unless running ranks have loaded it."""
        if self._group is None:
            self._local.kept.check()

    def rewrite(self, request: GenerationRequest, context: GenerationContext | None = None) -> GenerationRequest:
        """Rewrite the prompt if the request asks for it, on the CPU: the GPUs belong to the ranks."""
        return self._prompt_rewriter.rewrite(request, context or GenerationContext())

    def generate(self, request: GenerationRequest, context: GenerationContext | None = None) -> GenerationResult:
        """Generate one video.

        Raises:
            HunyuanLocalError: any error of :meth:`.base.Backend.generate`; or a rank died, in which case the next
                call restarts the ranks; or this backend is busy with another video (raised immediately).
        """
        context = context or GenerationContext()
        with self._one_at_a_time:
            # 1. Make every check that can refuse the request before starting a process.
            self._check_model()
            run = begin(request, context, name=self.config.name, resolve=self.resolve, model=self.config)
            choice = self._choose(run.request)
            run.rewrite(self._prompt_rewriter)
            for text in self._local.notes(run.request):
                run.note(text)
            choice.announce(run.note)

            # 2. The ranks do the rest together.
            command = {
                "asked": request.model_dump(), "request": run.request.model_dump(), "output": str(run.output),
                "began": run.began, "notes": run.notes, "options": _options(context),
            }  # fmt: skip
            try:
                answer = self._command("generate", command, choice.profile, context, run.note)
                assert answer is not None  # all ranks are done, including the leader
                return GenerationResult(**answer)
            except BaseException:
                for folder in filter(None, (run.output.absolute().parent, context.checkpoint_dir)):
                    sweep(folder)  # partial files of killed ranks
                raise

    def close(self) -> None:
        """Stop the ranks and unload the language model."""
        self._prompt_rewriter.close()
        group, self._group = self._group, None
        self._machine = None
        if group is not None:
            group.close()

    def _choose(self, request: ResolvedRequest) -> Choice:
        """The named profile, or the plan's choice for a single process; checks it against the degree."""
        if self._local.profile is None and (self._group is None or self._machine is None):
            self._machine = available_machine(self.shared.degree)
        choice = self._local.choose(request, self._profile, self._machine)
        if self._local.profile is None:  # the plan weighs compiling for one process; ranks cannot compile
            choice = replace(choice, profile=choice.profile.model_copy(update={"compile": False}))
        check_degree(self.shared, self.config, request, choice.profile, _gpus(choice.profile))
        return replace(choice, profile=choice.profile.model_copy(update={"context_parallel": self.shared}))

    def _command(
        self,
        kind: str,
        content: dict[str, Any],
        profile: RuntimeProfile,
        context: GenerationContext,
        note: Callable[[str], None],
    ) -> dict[str, Any] | None:
        """Send one command to all ranks and return the leader's answer.

        Raises:
            HunyuanLocalError: a rank failed.
        """
        self._stage = "load"
        group = self._start(profile, context)

        def on_message(rank: int, message: Message) -> None:
            self._note(rank, message, context, note)

        model, how = self.config.model_dump(mode="json"), profile.model_dump(mode="json")
        command = Command(group, kind, config=model, profile=how, **content)
        try:
            try:
                command.follow(context.cancel, on_message)
            except KeyboardInterrupt:
                # Earlier stages do not check for cancellation. A second Ctrl-C kills the ranks.
                if self._stage in _STOPS_IN_A_STEP:
                    stop = threading.Event()
                    stop.set()
                    command.follow(stop, on_message)
                raise
        except BaseException as error:
            if not (isinstance(error, KeyboardInterrupt) and command.left_in_step):
                self._kill(group)
            raise
        if not command.left_in_step:
            self._kill(group)
        command.raise_failure()
        self._profile = profile.model_copy(update={"context_parallel": None})
        return command.answer

    def _start(self, profile: RuntimeProfile, context: GenerationContext) -> RankGroup:
        """The ranks; starts them if any is missing."""
        if self._group is not None and (self._group.device != profile.device or not self._group.is_whole()):
            self._kill(self._group)
        if self._group is None:
            context.on_progress(Progress(stage="load"))
            self._group = RankGroup(self.shared.degree, profile.device, context.cancel.is_set)
        return self._group

    def _note(self, rank: int, message: Message, context: GenerationContext, note: Callable[[str], None]) -> None:
        """Handle a message that a rank sends while it works."""
        if message.get("memory") is not None:
            self._memory[rank] = tuple(message["memory"])
        if message["kind"] == "progress":
            progress = Progress(**message["progress"])
            self._stage = progress.stage
            context.on_progress(progress)
        elif message["kind"] == "note":
            note(message["text"])
        elif message["kind"] == "loaded" and rank == 0:
            self._device = message["device"]

    def _kill(self, group: RankGroup) -> None:
        self._group = self._profile = self._machine = None
        self._memory = {}
        self._device = "not loaded"
        group.kill()


def _options(context: GenerationContext) -> dict[str, Any]:
    """The fields of a context that can be sent to another process."""
    return {
        "output": None if context.output is None else str(context.output),
        "overwrite": context.overwrite,
        "checkpoint_dir": None if context.checkpoint_dir is None else str(context.checkpoint_dir),
        "checkpoint_every": context.checkpoint_every,
        "preview_every": context.preview_every,
        "safety": context.safety.model_dump(),
        "rewrite_s": context.rewrite_s,
    }


def _gpus(profile: RuntimeProfile) -> int:
    """Number of visible GPUs; 0 if the profile runs on the CPU."""
    if profile.device != "cuda":
        return 0
    from ...pipeline.memory.device import gpu_count

    return gpu_count()
