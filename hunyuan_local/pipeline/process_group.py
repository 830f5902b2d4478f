"""Several processes that make one video together: what one knows is told to all, and tiles are shared out.

One of them, the leader, talks with the world: it reads and writes files. Each runs the same steps at the same
time, so whatever decides about the next step must be the leader's word. Knows nothing about models.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from ..config import ContextParallel
from ..config.tiling import SPATIAL_COMPRESSION
from ..schema import TEMPORAL_COMPRESSION
from .checkpoint import Checkpoint, SavedState

T = TypeVar("T")
Decode = Callable[[torch.Tensor], torch.Tensor]

# Who waits, waits for a process that works, such as one that loads weights or waits for the disk; that one died is
# told by whoever started them. The libraries' own limits of minutes would end such waits.
_PATIENCE = timedelta(days=7)
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class ProcessGroup:
    """This process's place among those that make a video together, as ``shared`` says; the leader has rank 0.

    ``mesh`` is what diffusers' context parallelism runs over.
    """

    rank: int
    shared: ContextParallel
    mesh: DeviceMesh

    @classmethod
    def form(cls, device: str, shared: ContextParallel, meeting: str = "env://") -> ProcessGroup:
        """Meet the other processes; ``RANK`` in the environment is this one's.

        Args:
            device: ``cuda`` talks by NCCL about what is on the GPUs and by gloo about the rest; ``cpu`` by gloo.
            shared: how many processes there are, and how they share the attention.
            meeting: where they meet, as ``init_method`` of ``torch.distributed`` takes it.

        Raises:
            RuntimeError: torch was built without what is needed, or the others cannot be reached.
        """
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device == "cuda" else "cpu:gloo", meeting, timeout=_PATIENCE,
            rank=int(os.environ["RANK"]), world_size=shared.degree,
        )  # fmt: skip
        shape = (1, shared.degree) if shared.mode == "ulysses" else (shared.degree, 1)
        mesh = init_device_mesh(device, shape, mesh_dim_names=("ring", "ulysses"))
        return cls(dist.get_rank(), shared, mesh)

    @property
    def size(self) -> int:
        """How many processes there are."""
        return self.shared.degree

    @property
    def is_leader(self) -> bool:
        """Whether this process talks with the world."""
        return self.rank == 0

    def share(self, value: T) -> T:
        """The leader's value, in every process; the others' is not looked at. Tensors must be on the CPU."""
        box = [value]
        dist.broadcast_object_list(box, src=0, device=_CPU)
        return box[0]

    def leave(self) -> None:
        """End the connections; all processes do so."""
        dist.destroy_process_group()


class SharedCheckpoint(Checkpoint):
    """The leader's checkpoint, in every process: all go on from its state, and it alone saves.

    Args:
        process_group: all of it makes one of these.
        own: the leader's; the others' is not used.
    """

    def __init__(self, process_group: ProcessGroup, own: Checkpoint):
        super().__init__(every=own.every)
        self._group, self._own = process_group, own
        self.path = own.path

    def load(self) -> tuple[SavedState | None, str | None]:
        """See :class:`Checkpoint`."""
        return self._group.share(self._own.load() if self._group.is_leader else (None, None))

    def keep(self, state: SavedState, total: int, seed: int) -> None:
        """See :class:`Checkpoint`."""
        if self._group.is_leader:
            self._own.keep(state, total, seed)

    def rescue(self, seed: int, error: BaseException, note: Callable[[str], None]) -> None:
        """See :class:`Checkpoint`."""
        if self._group.is_leader:
            self._own.rescue(seed, error, note)

    def delete(self) -> None:
        """See :class:`Checkpoint`."""
        if self._group.is_leader:
            self._own.delete()


def tiles_of_group(
    process_group: ProcessGroup, cuts: Sequence[torch.Tensor], decode: Decode
) -> Generator[torch.Tensor, None, None]:
    """For the leader: every tile in order, where the others decode theirs meanwhile (:func:`help_with_tiles`).

    They are decoded in rounds, a tile a process, and the next round begins when the leader wants its first
    tile, so that never more tiles are held than there are processes. Closing it early lets the others go.

    Args:
        process_group: all of it takes part.
        cuts: latents [1, 16, n, H, W] of each tile.
        decode: from those to frames [1, 3, 4*(n-1)+1, 8*H, 8*W].
    """
    rounds = _rounds(cuts, process_group.size)
    owed: list[tuple[int, torch.Tensor]] = []
    try:
        while rounds:
            process_group.share(True)
            mine, *theirs = rounds.pop(0)
            owed = list(enumerate(theirs, start=1))
            tile = decode(mine)
            device, arrived = tile.device, []
            while owed:
                arrived.append(_receive(*owed.pop(0)))
            yield tile
            del tile
            while arrived:
                yield arrived.pop(0).to(device)
    finally:
        # Also where the leader cannot go on: the others wait until their tiles are taken, and for its word.
        with contextlib.suppress(RuntimeError):  # one of them is gone, which the error that led here is about
            while owed:
                _receive(*owed.pop(0))
            process_group.share(False)


def help_with_tiles(process_group: ProcessGroup, cuts: Sequence[torch.Tensor], decode: Decode) -> None:
    """For the others: decode the tiles of this process and send them to the leader, until it wants no more."""
    for cuts_of_round in [*_rounds(cuts, process_group.size), []]:
        if not process_group.share(None):
            return
        if process_group.rank < len(cuts_of_round):
            dist.send(decode(cuts_of_round[process_group.rank]).to(_CPU).contiguous(), dst=0)


def _rounds(cuts: Sequence[torch.Tensor], size: int) -> list[list[torch.Tensor]]:
    return [list(cuts[start : start + size]) for start in range(0, len(cuts), size)]


def _receive(rank: int, cut: torch.Tensor) -> torch.Tensor:
    """The tile of a process, from the latents that it was decoded from."""
    frames, height, width = cut.shape[2:]
    frames = (frames - 1) * TEMPORAL_COMPRESSION + 1
    tile = torch.empty(1, 3, frames, height * SPATIAL_COMPRESSION, width * SPATIAL_COMPRESSION, dtype=cut.dtype)
    dist.recv(tile, src=rank)
    return tile
