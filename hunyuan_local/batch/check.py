"""What of a batch could not be made, found before anything is: limits of a service, and sizes that do not fit here."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..backends.base import Backend
from ..errors import ConfigError, GpuMemoryError, InvalidRequestError
from ..schema import GenerationRequest
from .file import BadLine, BatchItem

# Raises what speaks against a size on this machine, such as the plan's refusal.
CheckSize = Callable[[GenerationRequest], object]


def check_items(
    items: Iterable[BatchItem], backend: Backend, *, allow_loss: bool, check_size: CheckSize | None
) -> tuple[list[BatchItem], list[BadLine]]:
    """The items that can be made, and the lines of those that cannot.

    Args:
        allow_loss: let a service leave out or change what it cannot hold.
        check_size: asked once for each size, length and guidance; None asks nobody.
    """
    good: list[BatchItem] = []
    bad: dict[int, BadLine] = {}
    sizes: dict[tuple[int | None, int | None, int | None, bool], str | None] = {}
    for item in items:
        problem = _refusal(item.request, backend, allow_loss)
        if problem is None and check_size is not None:
            request = item.request.with_defaults(dict(backend.capabilities.defaults))
            shape = (request.width, request.height, request.num_frames, request.true_cfg_scale > 1)
            if shape not in sizes:
                sizes[shape] = _size_problem(request, check_size)
            problem = sizes[shape]
        if problem is None:
            good.append(item)
        else:
            bad[item.line] = BadLine(item.line, problem)
    # A line is bad as a whole, also if only one of its seeds is.
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
    remedy = "; --allow-loss permits what can be" if any(loss["permissible"] for loss in wrong) else ""
    return "; ".join(f"{loss['field']}={loss['value']!r}: {loss['reason']}" for loss in wrong) + remedy


def _size_problem(request: GenerationRequest, check_size: CheckSize) -> str | None:
    try:
        check_size(request)
    except (GpuMemoryError, ConfigError) as error:
        return str(error)
    return None
