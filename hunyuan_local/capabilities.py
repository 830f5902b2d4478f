"""What a target can hold of a request, and what is lost where it cannot hold all.

A target is a backend or a dialect of the wire. It states its limits as data, and :func:`fit` holds
a request against them. Knows nothing about any particular target.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from .errors import Loss, RequestLossError
from .schema import MAX_FRAMES, MAX_SEED, GenerationRequest

ALL_FIELDS = frozenset(GenerationRequest.model_fields)
# Settled before a target sees the request, so none can lose them.
SETTLED_HERE = frozenset({"rewrite", "original_prompt"})


class Capabilities(BaseModel):
    """The limits of one target; both ends of a range are allowed.

    Attributes:
        fields: the request fields that it takes at all.
        sizes: the (width, height) pairs in pixels that it makes; None is every size that a request
            allows.
        steps: denoising steps.
        frames: number of frames, both ends being 4k+1; None where it does not say.
        seeds: seeds; a request without one gets a random one of these.
        prompt_characters: the longest prompt; None where it does not say.
        defaults: its own values for fields that a request leaves open.
        price_usd: of one video in US dollars; None if unknown. ``price_source`` says where from.
    """

    model_config = ConfigDict(frozen=True)

    fields: frozenset[str] = ALL_FIELDS
    sizes: tuple[tuple[int, int], ...] | None = None
    steps: tuple[int, int] = (1, 100)
    frames: tuple[int, int | None] | None = (1, MAX_FRAMES)
    seeds: tuple[int, int] = (0, MAX_SEED)
    prompt_characters: int | None = None
    defaults: dict[str, Any] = {}
    price_usd: float | None = None
    price_source: str | None = None


@dataclass(frozen=True)
class Fit:
    """A request as a target would take it, and what that costs; ``losses`` is empty if nothing."""

    request: GenerationRequest
    losses: tuple[Loss, ...]

    @property
    def possible(self) -> bool:
        """Whether permission is all that is missing."""
        return all(loss.permissible for loss in self.losses)


def fit(request: GenerationRequest, target: str, limits: Capabilities) -> Fit:
    """The nearest request that the target holds, with each loss named.

    The target's defaults are filled in: what it would choose by itself is said, not left open.
    """
    request = _with_whole_size(request, limits)
    losses: list[Loss] = []
    for loss, changes in _losses(request, target, limits):
        losses.append(loss)
        request = request.replace(**changes)
    return Fit(request.with_defaults(limits.defaults), tuple(losses))


def settle(request: GenerationRequest, target: str, limits: Capabilities, *, allow_loss: bool = False) -> Fit:
    """Like :func:`fit`, but what is not permitted is refused.

    Raises:
        RequestLossError: names each loss, if there is one and ``allow_loss`` is false, or one that
            no permission covers.
    """
    fitted = fit(request, target, limits)
    refused = [loss for loss in fitted.losses if not (allow_loss and loss.permissible)]
    if refused:
        raise RequestLossError(refused)
    return fitted


def _losses(request: GenerationRequest, target: str, limits: Capabilities) -> Iterator[tuple[Loss, dict[str, Any]]]:
    """Each loss, with the changes to the request that it stands for."""
    for name, field in GenerationRequest.model_fields.items():
        value = getattr(request, name)
        if name not in limits.fields | SETTLED_HERE and value != field.default:
            yield Loss(name, value, f"{target} has no such setting"), {name: field.default}
    longest = limits.prompt_characters
    if longest is not None and len(request.prompt) > longest:
        rule = f"{target} takes {longest} characters, this has {len(request.prompt)}"
        yield Loss("prompt", request.prompt, rule, permissible=False), {}
    if limits.sizes is not None and request.width is not None and request.height is not None:
        size = (request.width, request.height)
        if size not in limits.sizes:
            alike = (s for s in limits.sizes if (s[1] > s[0]) == (size[1] > size[0]))
            nearest = next(alike, limits.sizes[0])
            allowed = f"{target} makes {' and '.join(map(_by, limits.sizes))}"
            yield Loss("size", _by(size), allowed, _by(nearest)), dict(zip(("width", "height"), nearest, strict=True))
    for name, span in (("num_inference_steps", limits.steps), ("num_frames", limits.frames)):
        value = getattr(request, name)
        if value is not None and span is not None and name in limits.fields and (near := _clamp(value, span)) != value:
            yield Loss(name, value, f"{target} takes {_span(span)}", near), {name: near}
    if request.seed is not None and "seed" in limits.fields and _clamp(request.seed, limits.seeds) != request.seed:
        # Wrapped or clamped it would pass for the seed that was asked for.
        yield Loss("seed", request.seed, f"{target} takes {_span(limits.seeds)}", "a random one"), {"seed": None}


def _with_whole_size(request: GenerationRequest, limits: Capabilities) -> GenerationRequest:
    """Where one side is given and the target lists its sizes, the other side of the first that has it."""
    sides = (request.width, request.height)
    if limits.sizes is None or sides.count(None) != 1:
        return request
    default = tuple(
        limits.defaults.get(name, side) for name, side in zip(("width", "height"), limits.sizes[0], strict=True)
    )
    completed = (sides[0] or default[0], sides[1] or default[1])
    width, height = next((s for s in limits.sizes if s[0] == sides[0] or s[1] == sides[1]), completed)
    return request.replace(width=width, height=height)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _clamp(value: int, span: tuple[int, int | None]) -> int:
    low, high = span
    value = max(value, low)
    return value if high is None else min(value, high)


def _span(span: tuple[int, int | None]) -> str:
    low, high = span
    return f"{low} or more" if high is None else f"{low} to {high}"
