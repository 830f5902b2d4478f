"""Requests whose open fields are filled: what the planner weighs, and what a video is made from."""

from __future__ import annotations

from typing import Any, Self

from .schema import GenerationRequest


class FilledRequest(GenerationRequest):
    """A request in which every field that a model has a default for has a value; the seed may still be open.

    ``negative_prompt`` and ``rewrite`` stay None where nothing was asked for.
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
        """The request, with ``defaults`` in the fields that are None.

        Raises:
            InvalidRequestError: a field has no value after that; names it.
        """
        return cls(**request.with_defaults(defaults).model_dump())


class ResolvedRequest(FilledRequest):
    """A request that says all that makes the video: every field of :class:`FilledRequest`, and the seed."""

    seed: int
