"""Limits of backends and dialects, and what a request loses when a target does not support all of it.

A target is a backend or a wire dialect. It declares its limits as data, and :func:`fit` adapts a request to them.
This module knows nothing about particular targets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from .config import ModelConfig, presets
from .errors import Loss, RequestLossError
from .schema import MAX_FRAMES, MAX_SEED, GenerationRequest

ALL_FIELDS = frozenset(GenerationRequest.model_fields)
# Handled before a target sees the request, so no target can lose them.
SETTLED_HERE = frozenset({"rewrite", "original_prompt"})


class Capabilities(BaseModel):
    """The limits of one target; ranges include both ends.

    Attributes:
        fields: supported request fields.
        sizes: supported (width, height) pairs in pixels; None supports every valid size.
        steps: range of denoising steps.
        frames: range of the number of frames, both ends 4k+1; None if the target does not declare one.
        frame_counts: supported numbers of frames, if the target has only these; otherwise empty.
        seeds: range of seeds; a request without a seed gets a random one from it.
        prompt_characters: maximum length of a prompt; None if the target does not declare one.
        takes_image: whether a request must have an image; otherwise it must have none.
        image_sizes: (width, height) pairs to choose from for an image; see ``GenerationRequest.with_defaults``.
        names_models: whether a refusal of a request for its image names the models to use instead.
        with_image: the limits of requests with an image, if the target runs them with another model.
        defaults: the target's values for fields that are None.
        price_usd: price of one video in US dollars, None if unknown; ``price_source`` names the source.
    """

    model_config = ConfigDict(frozen=True)

    fields: frozenset[str] = ALL_FIELDS
    sizes: tuple[tuple[int, int], ...] | None = None
    steps: tuple[int, int] = (1, 100)
    frames: tuple[int, int | None] | None = (1, MAX_FRAMES)
    frame_counts: tuple[int, ...] = ()
    seeds: tuple[int, int] = (0, MAX_SEED)
    prompt_characters: int | None = None
    takes_image: bool = False
    image_sizes: tuple[tuple[int, int], ...] = ()
    names_models: bool = False
    with_image: Capabilities | None = None
    defaults: dict[str, Any] = {}
    price_usd: float | None = None
    price_source: str | None = None

    def of(self, request: GenerationRequest) -> Capabilities:
        """The limits that hold for this request: ``with_image``, if it has an image and the target has such limits."""
        return self if request.image is None or self.with_image is None else self.with_image

    def fill(self, request: GenerationRequest) -> GenerationRequest:
        """Return the request with the target's defaults in the fields that are None."""
        limits = self.of(request)
        return request.with_defaults(limits.defaults, limits.image_sizes)


def limits_of(model: ModelConfig) -> Capabilities:
    """The limits of a model that runs here: whether a request must have an image, and the defaults."""
    return Capabilities(
        takes_image=model.takes_image,
        image_sizes=model.image_sizes,
        names_models=True,
        defaults=dict(model.defaults),
    )


@dataclass(frozen=True)
class Fit:
    """A request adapted to a target, and the losses; ``losses`` is empty if nothing is lost."""

    request: GenerationRequest
    losses: tuple[Loss, ...]

    @property
    def possible(self) -> bool:
        """Whether the target can run the request if losses are permitted."""
        return all(loss.permissible for loss in self.losses)


def fit(request: GenerationRequest, target: str, limits: Capabilities) -> Fit:
    """Return the nearest request that the target supports, with each loss.

    Fills in the target's defaults, so that the result states every value that the target would choose.
    """
    limits = limits.of(request)
    request = _with_whole_size(request, limits)
    losses: list[Loss] = []
    for loss, changes in _losses(request, target, limits):
        losses.append(loss)
        request = request.replace(**changes)
    return Fit(limits.fill(request), tuple(losses))


def settle(request: GenerationRequest, target: str, limits: Capabilities, *, allow_loss: bool = False) -> Fit:
    """Like :func:`fit`, but raise an error for losses that are not permitted.

    Raises:
        RequestLossError: there are losses and ``allow_loss`` is false, or a loss can never be permitted; names each.
    """
    fitted = fit(request, target, limits)
    refused = [loss for loss in fitted.losses if not (allow_loss and loss.permissible)]
    if refused:
        raise RequestLossError(refused)
    return fitted


def _losses(request: GenerationRequest, target: str, limits: Capabilities) -> Iterator[tuple[Loss, dict[str, Any]]]:
    """Yield each loss with the corresponding changes to the request."""
    if (request.image is not None) is not limits.takes_image:
        yield _image_loss(request, target, limits), {}
    for name, field in GenerationRequest.model_fields.items():
        value = getattr(request, name)
        # A wrong image is refused as a whole, with its fit.
        settled = SETTLED_HERE | {"image"} | (set() if limits.takes_image else {"image_fit"})
        if name not in limits.fields | settled and value != field.default:
            yield Loss(name, value, f"{target} does not support this setting"), {name: field.default}
    longest = limits.prompt_characters
    if longest is not None and len(request.prompt) > longest:
        rule = f"the prompt is {len(request.prompt)} characters long; the limit of {target} is {longest}"
        yield Loss("prompt", request.prompt, rule, permissible=False), {}
    if limits.sizes is not None and request.width is not None and request.height is not None:
        size = (request.width, request.height)
        if size not in limits.sizes:
            alike = (s for s in limits.sizes if (s[1] > s[0]) == (size[1] > size[0]))
            nearest = next(alike, limits.sizes[0])
            allowed = f"{target} supports {' and '.join(map(_by, limits.sizes))}"
            yield Loss("size", _by(size), allowed, _by(nearest)), dict(zip(("width", "height"), nearest, strict=True))
    for name, span in (("num_inference_steps", limits.steps), ("num_frames", limits.frames)):
        value = getattr(request, name)
        if value is not None and span is not None and name in limits.fields and (near := _clamp(value, span)) != value:
            yield Loss(name, value, f"{target} supports {_span(span)}", near), {name: near}
    frames = request.num_frames
    if limits.frame_counts and frames is not None and frames not in limits.frame_counts:
        near = min(limits.frame_counts, key=lambda count: abs(count - frames))
        yield Loss("num_frames", frames, f"{target} supports {_counts(limits)}", near), {"num_frames": near}
    if request.seed is not None and "seed" in limits.fields and _clamp(request.seed, limits.seeds) != request.seed:
        # Do not wrap or clamp: the result would look like the requested seed.
        yield Loss("seed", request.seed, f"{target} supports {_span(limits.seeds)}", "a random seed"), {"seed": None}


def _counts(limits: Capabilities) -> str:
    return f"{' and '.join(map(str, limits.frame_counts))} frames"


def _image_loss(request: GenerationRequest, target: str, limits: Capabilities) -> Loss:
    """The image is missing, or there must be none."""
    rule = image_rule(target, limits, has_image=request.image is not None)
    return Loss("image", request.image, rule, permissible=False)


def image_rule(target: str, limits: Capabilities, *, has_image: bool) -> str:
    """Why a target refuses a request with or without an image, and the models that do not."""
    if has_image:
        rule, others = f"{target} makes videos from text alone", "image-to-video models"
    else:
        rule, others = f"{target} makes videos that begin with an image; give one", "text-to-video models"
    if limits.names_models:
        names = [model.name for model in presets() if model.takes_image is has_image]
        rule += f"; {others} are {', '.join(names)}"
    return rule


def _with_whole_size(request: GenerationRequest, limits: Capabilities) -> GenerationRequest:
    """If only one side is given and the target lists sizes, take the other side from the first size that matches."""
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
