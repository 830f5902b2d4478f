"""A component that diffusers' group offload streams to the device block by block, with three changes.

- What is outside the blocks stays on the device for a whole stage. diffusers moves it there and back with every forward
  pass, and copies it into new pages of main memory each time.
- With a stream, the CPU does not wait for each block before it starts the next one (diffusers' ``record_stream``). It
  waits for the block before the last, so that three blocks at most are on the device: without a limit, the weights of
  many would arrive before the first has run.
- A block that was prefetched but did not run, because a step cache skipped it, leaves the device after the forward
  pass. diffusers keeps it until its next run.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from typing import cast

import torch

from ..diffusers_private import ModuleGroup, groups_of, tensors_of_group
from .host_copies import HostCopies

_Move = Callable[[], None]
_uncompiled = cast("Callable[[_Move], _Move]", torch.compiler.disable)
_BLOCKS_BEHIND = 2  # blocks that may be queued or running when the weights of another one are requested


class StreamedComponent:
    """A module under group offload, as a visitor of the device.

    Args:
        module: group offload is enabled, and all weights are away from the device.
        make_event: creates an event of the device's stream if blocks are prefetched by a stream, such as
            ``torch.cuda.Event``; None if each block is moved when it runs.
        recast: see :class:`HostCopies`.
    """

    def __init__(
        self, module: torch.nn.Module, make_event: Callable[[], torch.Event] | None = None, *, recast: bool = False
    ):
        self._module, self._make_event, self._recast = module, make_event, recast
        self._rest, blocks = groups_of(module)
        self._on_device: dict[ModuleGroup, None] = {}  # in order of arrival
        self._ended: deque[torch.Event] = deque()
        self._copies: HostCopies | None = None
        for group in blocks:
            # Compiled blocks call these, and break their graph there, as with diffusers' own methods.
            group.onload_ = _uncompiled(functools.partial(self._fetch, group, group.onload_))
            group.offload_ = _uncompiled(functools.partial(self._drop, group, group.offload_))
        if self._rest is not None:
            self._move_rest, self._return_rest = self._rest.onload_, self._rest.offload_
            self._rest.onload_ = _uncompiled(functools.partial(self._unless_held, self._move_rest))
            self._rest.offload_ = _uncompiled(functools.partial(self._unless_held, self._return_rest))
        module.register_forward_hook(lambda *_: self._drop_all(), always_call=True)

    def arrive(self, device: torch.device) -> None:
        """Move what is outside the blocks to the device; it stays there until :meth:`leave`.

        Raises:
            torch.OutOfMemoryError: it does not fit.
        """
        if self._rest is None:
            return
        copies = HostCopies([self._module], tensors_of_group(self._rest), recast=self._recast)
        try:
            self._move_rest()
        except BaseException:
            copies.restore()
            raise
        copies.moved()
        self._copies = copies

    def leave(self) -> None:
        """Free all device memory of the component."""
        self._drop_all()
        self._ended.clear()
        if self._copies is not None:
            copies, self._copies = self._copies, None
            copies.restore()
            self._return_rest()  # what has changed

    def _unless_held(self, move: _Move) -> None:
        if self._copies is None:
            move()

    def _fetch(self, group: ModuleGroup, onload: _Move) -> None:
        if group in self._on_device:
            if group.stream is not None:  # the running block relies on this wait for its own weights
                group.stream.synchronize()
            return
        while len(self._ended) >= _BLOCKS_BEHIND:
            self._ended.popleft().synchronize()
        self._on_device[group] = None
        onload()

    def _drop(self, group: ModuleGroup, offload: _Move) -> None:
        offload()
        self._on_device.pop(group, None)
        if self._make_event is not None:
            event = self._make_event()
            event.record()
            self._ended.append(event)

    def _drop_all(self) -> None:
        """Free the blocks that are still on the device; after a full forward pass there are none."""
        for group in list(self._on_device):
            group.offload_()
