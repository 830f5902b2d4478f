"""Command-line flags made from the request's own fields, and back."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click
from click.shell_completion import CompletionItem

from ...backends.base import Backend
from ...backends.local.profile_choice import require_libraries
from ...backends.registry import backend_names, get_backend
from ...config import GIB, LoraConfig, cache_names, model_names, profile_names
from ...errors import FieldProblem, InvalidRequestError
from ...schema import GenerationRequest, parse_size

if TYPE_CHECKING:
    LoraType = click.ParamType[LoraConfig]
    DurationType = click.ParamType[float]
else:  # older releases of click have no such parameters
    LoraType = DurationType = click.ParamType

Function = TypeVar("Function", bound=Callable[..., Any])

# The prompt is an argument; its original is set by the rewriting alone.
_NO_FLAGS = ("prompt", "original_prompt")


def completed_by(names: Callable[[], Sequence[str]]) -> Callable[..., list[CompletionItem]]:
    """What a shell offers for an option that takes one of these names, and other values besides."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in names() if name.startswith(incomplete)]

    return complete


def request_options(command: Function) -> Function:
    """Give a command one flag for every request field but the prompt, and ``--size`` for two of them."""
    for name, field in reversed(GenerationRequest.model_fields.items()):
        if name not in _NO_FLAGS:
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
        width, height = parse_size(size)
        if given.keys() & {"width", "height"}:
            rule = "says the same as --width and --height; give one or the other"
            raise InvalidRequestError([FieldProblem("size", size, rule)])
        given |= {"width": width, "height": height}
    return GenerationRequest(prompt=prompt, **given)


def model_option(command: Function) -> Function:
    """``--model``, ``--revision`` and ``--profile``, with the names that exist."""
    names = ", ".join(model_names())
    profiles = (
        f"How to run it: auto, {', '.join(profile_names())}, a YAML file, or a mode that 'hunyuan-local plan' lists, "
        "such as group+tiling. auto, which is also taken if left out, is the fastest that the plan says fits."
    )
    command = click.option("--profile", shell_complete=completed_by(_profiles), help=profiles)(command)
    command = click.option("--revision", help="Branch, tag or commit of a Hub repository.")(command)
    return click.option(
        "--model", shell_complete=completed_by(model_names),
        help=f"{names}, a folder in diffusers' layout, or a Hub id. Default: hunyuan-video with a CUDA device, "
        "else tiny.",
    )(command)  # fmt: skip


def _profiles() -> list[str]:
    return ["auto", *profile_names()]


def tuning_options(command: Function) -> Function:
    """``--lora`` and ``--cache``: what is added to the model and to the profile."""
    command = click.option(
        "--cache", metavar="NAME", shell_complete=completed_by(cache_names),
        help=f"Skip steps that change little, which is faster and not exact: {', '.join(cache_names())}.",
    )(command)  # fmt: skip
    return click.option(
        "--lora", multiple=True, type=Lora(), metavar="FILE[=SCALE]",
        help="Add a LoRA: a safetensors file, or owner/name/file.safetensors on the Hub; may be given several times.",
    )(command)  # fmt: skip


def context_parallel_options(command: Function) -> Function:
    """``--context-parallel`` and ``--context-parallel-mode``: one video over several GPUs."""
    command = click.option(
        "--context-parallel-mode", type=click.Choice(["ulysses", "ring"]),
        help="How they share the attention: ulysses, which is also taken if left out, each some of the heads; ring, "
        "each some of the tokens, for numbers of GPUs that cannot share the heads.",
    )(command)  # fmt: skip
    return click.option(
        "--context-parallel", type=click.IntRange(min=1), metavar="N",
        help="Make the video on N GPUs of this machine together; with a CPU profile in N processes.",
    )(command)  # fmt: skip


def data_dir_option(command: Function) -> Function:
    """``--data-dir``, the folder of a job store."""
    return click.option(
        "--data-dir", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
        help="Folder with the jobs and their videos; HUNYUAN_LOCAL_DATA_DIR or the system's usual place if left out.",
    )(command)  # fmt: skip


def worker_options(command: Function) -> Function:
    """``--lease``, ``--checkpoint-every`` and ``--min-free-gib``: how workers work, here or under a server."""
    command = click.option(
        "--min-free-gib", "min_free_bytes", type=click.FloatRange(min=0), default=2, show_default=True, metavar="GIB",
        callback=lambda context, parameter, gib: round(gib * GIB), help="Take and begin no job with less free on the "
        "disk.",
    )(command)  # fmt: skip
    command = click.option(
        "--checkpoint-every", type=click.IntRange(min=1), metavar="STEPS",
        help="Save the state of the unfinished video after so many steps; if left out, after the step with which a "
        "crash would cost 30 seconds of work.",
    )(command)  # fmt: skip
    return click.option(
        "--lease", "lease_s", type=click.FloatRange(min=1), default=30, show_default=True, metavar="SECONDS",
        help="A worker without a sign of life loses its job after so long.",
    )(command)  # fmt: skip


class Lora(LoraType):
    """A file, or a file and a scale with ``=`` between them."""

    name = "lora"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> LoraConfig:
        if isinstance(value, LoraConfig):
            return value
        path, equals, scale = value.rpartition("=")
        if not equals or Path(value).expanduser().is_file():
            return LoraConfig(path=value)
        try:
            return LoraConfig(path=path, scale=float(scale))
        except ValueError:
            self.fail(f"{value!r}: after = must stand a scale from -10 to 10, such as FILE=0.8", param, ctx)


class Duration(DurationType):
    """Seconds, or a number with s, m, h or d behind it."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", value)
        if match is None:
            self.fail(f"{value!r} is no time; write seconds, or 90s, 15m, 12h, 7d", param, ctx)
        return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def backend_options(default: str, help_text: str) -> Callable[[Function], Function]:
    """``--backend`` with what the hosted ones need; :func:`backend_from` makes the backend."""

    def decorate(command: Function) -> Function:
        command = click.option(
            "--timeout", "timeout_s", type=float, metavar="SECONDS",
            help="How long a hosted task may take; 3600 if left out.",
        )(command)  # fmt: skip
        command = click.option(
            "--base-url", metavar="URL",
            help="Another address of the service, such as a server of your own; else WAVESPEED_BASE_URL or "
            "NOVITA_BASE_URL.",
        )(command)  # fmt: skip
        command = click.option(
            "--api-key", metavar="KEY",
            help="Key of the service; better in WAVESPEED_API_KEY or NOVITA_API_KEY, since other users of a machine "
            "see command lines.",
        )(command)  # fmt: skip
        names = f"{help_text}: {', '.join(backend_names())}."
        return click.option(
            "--backend", default=default, show_default=True, shell_complete=completed_by(backend_names), help=names
        )(command)

    return decorate


def backend_from(flags: dict[str, Any]) -> Backend:
    """The backend that the flags of the options above describe; takes them out of ``flags``.

    Raises:
        ConfigError: unknown names, or a flag of another backend.
    """
    names = (
        "model", "revision", "profile", "lora", "cache", "context_parallel", "context_parallel_mode",
        "api_key", "base_url", "timeout_s",
    )  # fmt: skip
    return get_backend(flags.pop("backend"), **{name: flags.pop(name, None) or None for name in names})


def refuse_missing_libraries(backend: Backend) -> None:
    """Refuse, before the model is read, what needs an extra that is not installed, and LoRA and GGUF files that cannot
    be used; a service needs none.

    Raises:
        ConfigError: names the extra, or the file that is not there.
        ModelLoadError: a file is damaged, or of another architecture.
    """
    if backend.config is not None:
        from ...weights.added_files import check_added_files

        require_libraries(backend.config, backend.profile)
        check_added_files(backend.config)


def _value_type(annotation: Any) -> type | click.Choice[Any]:
    """``int`` for ``int | None`` and so on; every request field is a number, a text, or one of some words."""
    if typing.get_origin(annotation) is typing.Literal:
        return click.Choice(typing.get_args(annotation))
    members = [member for member in typing.get_args(annotation) if member is not type(None)]
    return _value_type(members[0]) if members else annotation
