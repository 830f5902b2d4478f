"""Holds a component's tensors in main memory while it is on the device, so that it leaves without copying back.

Weights do not change during inference. Copying them back would fill new pages of main memory, at 1.3 GB/s on an H100.
A tensor that did change, or was replaced, is left as it is: the caller copies it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from ..torch_private import Tensors, inner_tensors, is_wrapper, swap, tensors_of, version_of


@dataclass
class _Copy:
    """One tensor of a module, and what it was in main memory and after the move to the device."""

    owner: Tensors
    name: str
    tensor: torch.Tensor
    data: torch.Tensor
    moved: torch.Tensor | None = None
    state: tuple[object, ...] = ()


class HostCopies:
    """The tensors of some modules in main memory, held while the modules are on the device.

    Create it before the move, call :meth:`moved` after it, and :meth:`restore` before the move back. If the move
    fails halfway, call :meth:`restore` alone.

    Args:
        modules: their parameters and buffers, those of submodules included.
        only: the tensors to hold; None for all.
        recast: whether forward passes store the tensors again with the same values, as diffusers' layerwise casting
            does.
    """

    def __init__(self, modules: Iterable[torch.nn.Module], only: Iterable[torch.Tensor] | None = None, *, recast: bool):
        chosen = None if only is None else {id(tensor) for tensor in only}
        self._recast = recast
        self._copies = [
            # Changes of a tensor's data do not reach ``detach()``, which shares the storage.
            _Copy(owner, name, tensor, tensor.detach() if is_wrapper(tensor) else tensor.data)
            for owner, name, tensor in _tensors(modules)
            if tensor.device.type == "cpu" and (chosen is None or id(tensor) in chosen)
        ]

    def moved(self) -> None:
        """Record the tensors on the device, to notice later changes."""
        for copy in self._copies:
            copy.moved = copy.owner.get(copy.name)
            copy.state = self._state(copy.moved)

    def restore(self) -> None:
        """Point each unchanged tensor at its copy in main memory; its device memory is freed."""
        for copy in self._copies:
            present = copy.owner.get(copy.name)
            if present is None or (copy.moved is not None and not self._unchanged(copy, present)):
                continue
            if present is not copy.tensor:  # the move replaced the tensor, as it does with buffers
                copy.owner[copy.name] = copy.tensor
            elif is_wrapper(present):  # setting ``data`` would leave its inner tensors on the device
                swap(present, torch.nn.Parameter(copy.data.detach(), requires_grad=False))
            else:
                present.data = copy.data
        self._copies.clear()

    def _unchanged(self, copy: _Copy, present: torch.Tensor) -> bool:
        return present is copy.moved and self._state(present) == copy.state

    def _state(self, tensor: torch.Tensor | None) -> tuple[object, ...]:
        """What differs after a change: in place, or by setting ``data``."""
        if tensor is None:
            return ()
        parts = (tensor, *_inner(tensor)) if is_wrapper(tensor) else (tensor,)
        return tuple(
            (version_of(part), part.shape, part.dtype, None if self._recast or is_wrapper(part) else part.data_ptr())
            for part in parts
        )


def _inner(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The plain tensors that a quantized tensor consists of."""
    for part in inner_tensors(tensor):
        yield part
        if is_wrapper(part):
            yield from _inner(part)


def _tensors(modules: Iterable[torch.nn.Module]) -> Iterator[tuple[Tensors, str, torch.Tensor]]:
    """Each tensor with the dictionary that holds it, and its name there."""
    for part in dict.fromkeys(part for module in modules for part in module.modules()):
        for owner in tensors_of(part):
            yield from ((owner, name, tensor) for name, tensor in owner.items() if tensor is not None)


class Visitor:
    """A component that is on the device only for its stages.

    Args:
        module: moved to main memory now.
        copied_back: whether its weights are moved back instead of held, because they are more than their tensors, as
            with bitsandbytes' 4-bit weights, whose scales move with them.
        recast: see :class:`HostCopies`.
    """

    def __init__(self, module: torch.nn.Module, *, copied_back: bool = False, recast: bool = False):
        self._module, self._copied_back, self._recast = module, copied_back, recast
        self._copies: HostCopies | None = None
        module.to("cpu")

    def arrive(self, device: torch.device) -> None:
        """Move the component to the device.

        Raises:
            torch.OutOfMemoryError: it does not fit; :meth:`leave` frees what has arrived.
        """
        self._copies = HostCopies(() if self._copied_back else (self._module,), recast=self._recast)
        self._module.to(device)
        self._copies.moved()

    def leave(self) -> None:
        """Free the component's device memory; copies back only what has changed."""
        if self._copies is not None:
            self._copies.restore()
            self._copies = None
        self._module.to("cpu")
