"""Several processes that generate one video together: the leader's decisions are broadcast, decoding tiles are shared.

Rank 0, the leader, does all input and output. All ranks run the same steps in lockstep, so every value that decides
the next step must come from the leader. Knows nothing about models.
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

# A rank may wait long for one that loads weights or waits for the disk, longer than the libraries' default timeouts of
# minutes. The launcher detects ranks that die.
_PATIENCE = timedelta(days=7)
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class ProcessGroup:
    """This process's rank in a group that generates a video together; the leader has rank 0.

    ``shared`` holds the number of processes and the attention mode; diffusers' context parallelism uses ``mesh``.
    """

    rank: int
    shared: ContextParallel
    mesh: DeviceMesh

    @classmethod
    def form(cls, device: str, shared: ContextParallel, meeting: str = "env://") -> ProcessGroup:
        """Join the group, with the rank from ``RANK`` in the environment; returns when all ranks have joined.

        Args:
            device: ``cuda`` uses NCCL for tensors on the GPUs and gloo for the rest; ``cpu`` uses gloo.
            shared: the number of processes, and how they split the attention.
            meeting: ``init_method`` of ``torch.distributed``.

        Raises:
            RuntimeError: this build of torch lacks the backend, or the other ranks cannot be reached.
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
        """Number of processes."""
        return self.shared.degree

    @property
    def group(self) -> dist.ProcessGroup:
        """All ranks, as torch names them."""
        group = dist.group.WORLD
        assert group is not None  # formed by form()
        return group

    @property
    def is_leader(self) -> bool:
        """Whether this process is rank 0, which does the input and output."""
        return self.rank == 0

    def share(self, value: T) -> T:
        """Broadcast the leader's value; other ranks' values are ignored. Tensors must be on the CPU."""
        box = [value]
        dist.broadcast_object_list(box, src=0, device=_CPU)
        return box[0]

    def gather(self, value: T) -> list[T]:
        """The value of each rank, in order and the same in all processes. Tensors must be on the CPU."""
        found: list[T] = [value] * self.size
        dist.all_gather_object(found, value)
        return found

    def leave(self) -> None:
        """Close the connections; all ranks must call it."""
        dist.destroy_process_group()


class SharedCheckpoint(Checkpoint):
    """The leader's checkpoint, shared by all ranks: all resume from its state, and only the leader saves.

    Args:
        process_group: all its ranks must create one.
        own: the leader's checkpoint; ignored on other ranks.
    """

    def __init__(self, process_group: ProcessGroup, own: Checkpoint):
        super().__init__(every=own.every)
        self._group, self._own = process_group, own
        self.path = own.path

    def load(self) -> tuple[SavedState | None, str | None]:
        """Broadcast the leader's saved state."""
        return self._group.share(self._own.load() if self._group.is_leader else (None, None))

    def keep(self, state: SavedState, total: int, seed: int) -> None:
        """Save on the leader only."""
        if self._group.is_leader:
            self._own.keep(state, total, seed)

    def rescue(self, seed: int, error: BaseException, note: Callable[[str], None]) -> None:
        """Save on the leader only, when an error ends the video."""
        if self._group.is_leader:
            self._own.rescue(seed, error, note)

    def delete(self) -> None:
        """Delete the leader's file."""
        if self._group.is_leader:
            self._own.delete()


def tiles_of_group(
    process_group: ProcessGroup, cuts: Sequence[torch.Tensor], decode: Decode
) -> Generator[torch.Tensor, None, None]:
    """On the leader: yield every tile in order while the other ranks decode theirs (:func:`help_with_tiles`).

    Tiles are decoded in rounds of one tile per process. A round starts when the leader needs its first tile, so
    there are never more tiles in memory than processes. Closing the generator early releases the other ranks.

    Args:
        process_group: all ranks take part.
        cuts: latents [1, 16, n, H, W] of each tile.
        decode: maps them to frames [1, 3, 4*(n-1)+1, 8*H, 8*W].
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
        # Also after an error on the leader: the others block until their tiles are received and they are released.
        with contextlib.suppress(RuntimeError):  # a rank has died; the original error reports it
            while owed:
                _receive(*owed.pop(0))
            process_group.share(False)


def help_with_tiles(process_group: ProcessGroup, cuts: Sequence[torch.Tensor], decode: Decode) -> None:
    """On the other ranks: decode this rank's tiles and send them to the leader, until it needs no more."""
    for cuts_of_round in [*_rounds(cuts, process_group.size), []]:
        if not process_group.share(None):
            return
        if process_group.rank < len(cuts_of_round):
            dist.send(decode(cuts_of_round[process_group.rank]).to(_CPU).contiguous(), dst=0)


def _rounds(cuts: Sequence[torch.Tensor], size: int) -> list[list[torch.Tensor]]:
    return [list(cuts[start : start + size]) for start in range(0, len(cuts), size)]


def _receive(rank: int, cut: torch.Tensor) -> torch.Tensor:
    """Receive a rank's tile; its shape follows from the latents it was decoded from."""
    frames, height, width = cut.shape[2:]
    frames = (frames - 1) * TEMPORAL_COMPRESSION + 1
    tile = torch.empty(1, 3, frames, height * SPATIAL_COMPRESSION, width * SPATIAL_COMPRESSION, dtype=cut.dtype)
    dist.recv(tile, src=rank)
    return tile
