"""Command-line flags made from the request's own fields, and back."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable
from typing import Any

import rich_click as click

from ..config import model_names, profile_names
from ..errors import FieldProblem, InvalidRequestError
from ..schema import GenerationRequest

_SIZE = re.compile(r"(\d+)[*x](\d+)")


def request_options(command: Callable) -> Callable:
    """Give a command one flag for every request field but the prompt, and ``--size`` for two of them."""
    for name, field in reversed(GenerationRequest.model_fields.items()):
        if name != "prompt":
            flag = f"--{name.replace('_', '-')}"
            command = click.option(flag, name, type=_value_type(field.annotation), help=field.description)(command)
    return click.option("--size", metavar="W*H", help="Width and height at once, such as 1280*720 or 1280x720.")(
        command
    )


def request_from(prompt: str, size: str | None, flags: dict[str, Any]) -> GenerationRequest:
    """The request that the flags describe.

    Raises:
        InvalidRequestError: a value is not allowed, or ``--size`` contradicts ``--width``/``--height``.
    """
    given = {name: flags[name] for name in GenerationRequest.model_fields if flags.get(name) is not None}
    if size is not None:
        match = _SIZE.fullmatch(size)
        if match is None:
            raise InvalidRequestError([FieldProblem("size", size, "must be WIDTH*HEIGHT, such as 1280*720")])
        if given.keys() & {"width", "height"}:
            rule = "says the same as --width and --height; give one or the other"
            raise InvalidRequestError([FieldProblem("size", size, rule)])
        given |= {"width": int(match[1]), "height": int(match[2])}
    return GenerationRequest(prompt=prompt, **given)


def model_option(command: Callable) -> Callable:
    """``--model``, ``--revision`` and ``--profile``, with the names that exist."""
    names = ", ".join(model_names())
    profiles = f"How to run it: {', '.join(profile_names())}. Chosen by the machine if left out."
    command = click.option("--profile", help=profiles)(command)
    command = click.option("--revision", help="Branch, tag or commit of a Hub repository.")(command)
    return click.option(
        "--model",
        help=f"{names}, a folder in diffusers' layout, or a Hub id. Default: hunyuan-video with a CUDA device, "
        "else tiny.",
    )(command)


def _value_type(annotation: Any) -> type:
    """``int`` for ``int | None`` and so on; every request field is a number or a text."""
    if isinstance(annotation, types.UnionType):
        annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
    return annotation
