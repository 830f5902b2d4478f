"""A rank: one of the processes that generate a video together, running the backend's commands in step.

Started by :class:`.launcher.RankGroup` with the group's folder as argument. It exits when its connection to the
backend closes. Rank 0 is the leader: only it reads and writes saved states and videos, and reports progress and notes.
"""

from __future__ import annotations

import os
import queue
import shutil
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...config import ModelConfig, RuntimeProfile, SafetyConfig
from ...config.places import settle_libraries
from ...durable import discard_all
from ...errors import ContentBlockedError, GpuMemoryError, InvalidOutputError
from ...pipeline.library_imports import importing, skip_libraries_in_collections
from ...pipeline.library_output import hide_import_noise
from ...planner.tiles import Tiles
from ...resolved import ResolvedRequest
from ...schema import GenerationRequest, GenerationResult, Progress, SafetyVerdict
from ...signals import leave_to_parent
from ...stdio import prepare_streams
from ...supervision import parent_connection
from ..base import GenerationContext
from ..begin import Run, open_state
from ..local.decode_and_write import finish, make_previewer
from ..local.kept_model import KeptModel
from .messages import Message, MessageSocket, with_image

if TYPE_CHECKING:
    from ...pipeline.denoise import Denoised
    from ...pipeline.model import LoadedModel
    from ...pipeline.process_group import ProcessGroup


class Rank:
    """The state that one process keeps between requests.

    Args:
        connection: connection to the backend.
        rank: rank of this process.
        folder: folder of the group, in which its processes meet; deleted when the backend has exited.
    """

    def __init__(self, connection: MessageSocket, rank: int, folder: Path):
        self._connection, self._rank, self._folder = connection, rank, folder
        self._commands: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._cancel = threading.Event()
        self._process_group: ProcessGroup | None = None
        self._kept: KeptModel | None = None

    def listen(self) -> None:
        """Receive messages, also while a video is generated; exits the process when the connection closes."""
        for message in self._connection.receive():
            if message["kind"] == "cancel":
                self._cancel.set()
            else:
                self._cancel.clear()  # here rather than in work(), which could clear the cancel of this command
                self._commands.put(message)
        # Nobody needs the result any more, and the main thread may be waiting for a rank that has exited.
        discard_all()
        if self._kept is not None and (model := self._kept.loaded) is not None:
            model.placement.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        os._exit(1)

    def work(self) -> None:
        """Run commands until the backend sends ``leave``."""
        while (command := self._commands.get())["kind"] != "leave":
            try:
                self._connection.send("done", result=self._do(command))
            except Exception as error:
                traceback.print_exc()  # into the log of this rank
                self._connection.send("error", **as_message(error))
        if self._kept is not None:
            self._kept.close()
        if self._process_group is not None:
            self._process_group.leave()

    def _do(self, command: Message) -> dict[str, Any] | None:
        if command["kind"] == "load":
            self._load(command)
            return None
        result = self._generate(command)
        return None if result is None else result.model_dump(mode="json")

    def _load(self, command: Message) -> LoadedModel:
        """Load the model in the profile of the command, and join the process group."""
        with importing():
            from ...pipeline.context_parallel import join
            from ...pipeline.process_group import ProcessGroup
            from ...weights.source import provide

        profile = RuntimeProfile(**command["profile"])
        shared = profile.context_parallel
        assert shared is not None  # set by the backend
        self._process_group = self._process_group or ProcessGroup.form(
            profile.device, shared, f"file://{self._folder / 'meeting'}"
        )
        self._kept = self._kept or KeptModel(ModelConfig(**command["config"]))
        context = self._context(command)
        # Only the leader downloads; the others wait for it and then find the weights in the cache.
        if self._process_group.is_leader:
            provide(self._kept.config, lambda transfer: context.on_progress(transfer.progress), context.on_note)
        self._process_group.share(None)
        model = self._kept.load(profile.model_copy(update={"context_parallel": None}), context)
        if model.process_group is None:
            join(model, self._process_group, profile.attention_backend)
        self._connection.send("loaded", device=self._kept.device, memory=self._kept.memory())
        return model

    def _generate(self, command: Message) -> GenerationResult | None:
        """Generate one video; returns the result on the leader, None on the others."""
        from ...pipeline.checkpoint import Checkpoint
        from ...pipeline.denoise import denoise
        from ...pipeline.model import facts_of
        from ...pipeline.process_group import SharedCheckpoint

        request, context = with_image(ResolvedRequest(**command["request"]), command["image"]), self._context(command)
        output = Path(command["output"])
        run = Run(request, output, context, command["began"], notes=command["notes"])
        model, process_group = self._load(command), self._process_group
        assert process_group is not None  # formed by _load
        run.loaded = time.monotonic()
        own, previewer = Checkpoint(), None
        if process_group.is_leader:
            own = open_state(GenerationRequest(**command["asked"]), model.config, context) or own
            own.facts = facts_of(model, request)
            previewer = make_previewer(run, model) if context.preview_every else None
        checkpoint = SharedCheckpoint(process_group, own)
        try:
            denoised = denoise(
                model, request, model.config.render_size(request.width, request.height), context.on_progress, run.note,
                lambda: process_group.share(self._cancel.is_set()), checkpoint, previewer,
            )  # fmt: skip
            result = self._finish(run, model, denoised, process_group)
        except (ContentBlockedError, InvalidOutputError):
            checkpoint.delete()  # the same latents would give the same video
            raise
        except BaseException as error:  # as in the local backend: keep the finished steps
            checkpoint.rescue(request.seed, error, run.note)
            raise
        checkpoint.delete()
        return result

    def _finish(
        self, run: Run[ResolvedRequest], model: LoadedModel, denoised: Denoised, process_group: ProcessGroup
    ) -> GenerationResult | None:
        """From latents to a file, which the leader writes; the other ranks help with decoding."""
        from ...pipeline.decode import help_decoding
        from ...pipeline.model import decoding_bytes

        tiles = Tiles(model.config, run.request)
        tiling = process_group.share(
            tiles.choose(model.profile, decoding_bytes(model)) if process_group.is_leader else None
        )
        assert tiling is not None  # the leader shares its choice
        run.recoveries += recoveries_of_others(process_group.gather(model.kernel.recoveries))
        if process_group.is_leader:
            return finish(run, model, denoised, tiling)
        help_decoding(model, denoised.latents, tiling)
        return None

    def _context(self, command: Message) -> GenerationContext:
        def tell(progress: Progress) -> None:
            memory = None if self._kept is None else self._kept.memory()
            if self._rank == 0:
                self._connection.send("progress", progress=progress.model_dump(mode="json"), memory=memory)
            elif memory is not None:
                self._connection.send("memory", memory=memory)

        def note(text: str) -> None:
            if self._rank == 0:
                self._connection.send("note", text=text)

        options = dict(command.get("options", {}))
        options["safety"] = SafetyConfig(**options.get("safety", {}))
        return GenerationContext(on_progress=tell, on_note=note, cancel=self._cancel, **options)


def recoveries_of_others(of_ranks: list[list[str]]) -> list[str]:
    """The recoveries of the other ranks that the leader does not have, each with its rank."""
    leaders, *others = of_ranks
    return [f"rank {rank}: {text}" for rank, own in enumerate(others, 1) for text in own if text not in leaders]


def as_message(error: Exception) -> dict[str, Any]:
    """The message for an error; the backend turns it back into one with ``as_error``."""
    message: dict[str, Any] = {"type": type(error).__name__, "text": str(error).strip()}
    if isinstance(error, GpuMemoryError):
        message |= {"stage": error.stage, "peak_bytes": error.peak_bytes}
    if isinstance(error, ContentBlockedError) and isinstance(error.verdict, SafetyVerdict):
        message["verdict"] = error.verdict.model_dump()
    return message


def see_own_gpu_alone() -> None:
    """Make the GPU of this rank its only visible one, as device 0.

    Much code, some of it in libraries, assumes device 0: safetensors loads weights to it whatever torch's current
    device is. NCCL still reaches the other GPUs, which CUDA allows since 10.1.
    """
    visible, rank = os.environ.get("CUDA_VISIBLE_DEVICES"), int(os.environ["LOCAL_RANK"])
    if visible is None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(rank)
    elif visible:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[rank].strip()
    os.environ["LOCAL_RANK"] = "0"  # torch's device mesh selects its device by it


def main() -> None:
    """Connect to the backend and run its commands."""
    see_own_gpu_alone()  # before any code initializes a device
    prepare_streams()  # the log may be on a full disk
    leave_to_parent()
    connection, rank = MessageSocket(parent_connection()), int(os.environ["RANK"])
    worker = Rank(connection, rank, Path(sys.argv[1]))
    connection.send("hello")
    threading.Thread(target=worker.listen, name="listener", daemon=True).start()
    hide_import_noise()
    skip_libraries_in_collections()
    settle_libraries()
    worker.work()
    os._exit(0)  # without waking the listener, which treats a closed connection as a failure


if __name__ == "__main__":
    main()
