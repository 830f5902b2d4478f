"""Checks a batch before the work starts: limits of the service, and sizes that do not fit on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..backends.base import Backend
from ..errors import ConfigError, GpuMemoryError, InvalidRequestError
from ..schema import GenerationRequest
from .file import BadLine, BatchItem

# Raises an error, such as the plan's refusal, if this machine cannot generate a video of the requested size.
CheckSize = Callable[[GenerationRequest], object]


def check_items(
    items: Iterable[BatchItem], backend: Backend, *, allow_loss: bool, check_size: CheckSize | None
) -> tuple[list[BatchItem], list[BadLine]]:
    """Split the items into those that can be generated and the lines of those that cannot.

    Args:
        allow_loss: let a service drop or change values that it does not support.
        check_size: called once for each combination of size, length and guidance; None skips the check.
    """
    good: list[BatchItem] = []
    bad: dict[int, BadLine] = {}
    sizes: dict[tuple[int | None, int | None, int | None, bool], str | None] = {}
    for item in items:
        problem = _refusal(item.request, backend, allow_loss)
        if problem is None and check_size is not None:
            request = backend.capabilities.fill(item.request)
            shape = (request.width, request.height, request.num_frames, request.true_cfg_scale > 1)
            if shape not in sizes:
                sizes[shape] = _size_problem(request, check_size)
            problem = sizes[shape]
        if problem is None:
            good.append(item)
        else:
            bad[item.line] = BadLine(item.line, problem)
    # If one seed of a line is refused, so is the whole line.
    return [item for item in good if item.line not in bad], [*bad.values()]


def _refusal(request: GenerationRequest, backend: Backend, allow_loss: bool) -> str | None:
    """Why the backend would refuse a request."""
    try:
        found = backend.explain(request)
    except InvalidRequestError as error:
        return str(error)
    wrong = [loss for loss in found.losses if not (allow_loss and loss["permissible"])]
    if found.verdict == "accepted" or not wrong:
        return None
    remedy = "; --allow-loss accepts the permissible losses" if any(loss["permissible"] for loss in wrong) else ""
    return "; ".join(f"{loss['field']}={loss['value']!r}: {loss['reason']}" for loss in wrong) + remedy


def _size_problem(request: GenerationRequest, check_size: CheckSize) -> str | None:
    try:
        check_size(request)
    except (GpuMemoryError, ConfigError) as error:
        return str(error)
    return None
