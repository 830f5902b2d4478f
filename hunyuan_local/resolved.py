"""Requests with all defaults filled in, as the planner and the pipeline need them."""

from __future__ import annotations

from typing import Any, Self

from .schema import GenerationRequest


class FilledRequest(GenerationRequest):
    """A request in which every field with a model default has a value; the seed may still be None.

    Its fields are those of :class:`hunyuan_local.config.GenerationDefaults`, repeated for their types without None.
    ``negative_prompt`` and ``rewrite`` stay None unless the user set them.
    """

    width: int
    height: int
    num_frames: int
    num_inference_steps: int
    guidance_scale: float
    flow_shift: float
    fps: int

    @classmethod
    def of(cls, request: GenerationRequest, defaults: dict[str, Any]) -> Self:
        """Return the request with ``defaults`` in the fields that are None.

        Raises:
            InvalidRequestError: a field still has no value; names it.
        """
        return cls(**request.with_defaults(defaults).model_dump())


class ResolvedRequest(FilledRequest):
    """A request that determines the video completely: a :class:`FilledRequest` with a seed."""

    seed: int
