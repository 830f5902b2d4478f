"""Options shared by several commands, and the objects built from them.

The options of a request are generated from the fields of :class:`hunyuan_local.schema.GenerationRequest`.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click
from click.shell_completion import CompletionItem
from pydantic.fields import FieldInfo

from ...backends.base import Backend
from ...backends.local.profile_choice import require_libraries
from ...backends.registry import backend_names, get_backend
from ...config import GIB, LoraConfig, cache_names, model_names, profile_names
from ...errors import FieldProblem, InvalidRequestError
from ...schema import GenerationRequest, field_limits, parse_size

if TYPE_CHECKING:
    LoraType = click.ParamType[LoraConfig]
    DurationType = click.ParamType[float]
else:  # not generic in older releases of click
    LoraType = DurationType = click.ParamType

Function = TypeVar("Function", bound=Callable[..., Any])

# The prompt is an argument; only rewriting sets original_prompt.
_NO_FLAGS = ("prompt", "original_prompt")
DEFAULT_MODEL_TEXT = "hunyuan-video with a GPU, else tiny"


def completed_by(names: Callable[[], Sequence[str]]) -> Callable[..., list[CompletionItem]]:
    """Return shell completion for an option that accepts one of these names, or other values."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in names() if name.startswith(incomplete)]

    return complete


def request_options(command: Function) -> Function:
    """Add an option for every request field except the prompt, and ``--size`` for width and height."""
    for name, field in reversed(GenerationRequest.model_fields.items()):
        if name not in _NO_FLAGS:
            flag = f"--{name.replace('_', '-')}"
            command = click.option(
                flag, name, type=_value_type(field.annotation), help=f"{field.description}{_request_range(name)}",
                show_default=_default_shown(name, field),
            )(command)  # fmt: skip
    return click.option("--size", metavar="W*H", help="Width and height, such as 1280*720 or 1280x720.")(command)


def config_range(field: FieldInfo) -> str:
    """Allowed values of a config's numeric field as the end of a help text, such as `` [0..1]``."""
    bounds = {key: getattr(item, key) for item in field.metadata for key in ("ge", "gt", "le") if hasattr(item, key)}
    if "le" in bounds:
        return f" [{bounds['ge']}..{bounds['le']}]"
    return f" [x>{bounds['gt']}]" if "gt" in bounds else ""


def _request_range(name: str) -> str:
    """Allowed values of a numeric request field as the end of a help text, such as `` [1..100]``."""
    limits = field_limits(name)
    return "" if limits is None else f" {limits}"


def _default_shown(name: str, field: FieldInfo) -> str | bool:
    """The default in ``--help``; a field that is None takes the default of the model or the service."""
    if name == "rewrite":
        return "off"
    return False if field.default is None else f"{field.default:g}"


def request_from(prompt: str, size: str | None, flags: dict[str, Any]) -> GenerationRequest:
    """Build the request that the options describe.

    Raises:
        InvalidRequestError: a value is not allowed, or ``--size`` is combined with ``--width`` or ``--height``.
    """
    given = {name: flags[name] for name in GenerationRequest.model_fields if flags.get(name) is not None}
    if size is not None:
        width, height = parse_size(size)
        if given.keys() & {"width", "height"}:
            rule = "cannot be combined with --width and --height; use one or the other"
            raise InvalidRequestError([FieldProblem("size", size, rule)])
        given |= {"width": width, "height": height}
    return GenerationRequest(prompt=prompt, **given)


def model_option(command: Function, *, default_of: str = "") -> Function:
    """Add ``--model``, ``--revision`` and ``--profile``.

    Args:
        default_of: what supplies their default values, as ``--help`` shows it; empty is this package.
    """
    names = ", ".join(model_names())
    profiles = (
        f"How to run the model: auto (the fastest that fits), {', '.join(profile_names())}, a YAML file, or a mode "
        "listed by 'hunyuan-local plan', such as group+tiling."
    )
    command = click.option(
        "--profile", shell_complete=completed_by(_profiles), show_default=default_of or "auto", help=profiles
    )(command)  # fmt: skip
    command = click.option("--revision", help="Branch, tag or commit of the model's Hub repository.")(command)
    return click.option(
        "--model", shell_complete=completed_by(model_names), show_default=default_of or DEFAULT_MODEL_TEXT,
        help=f"Model: {names}, a folder in diffusers format, or a Hub id.",
    )(command)  # fmt: skip


def _profiles() -> list[str]:
    return ["auto", *profile_names()]


def tuning_options(command: Function) -> Function:
    """Add ``--lora`` and ``--cache``."""
    command = click.option(
        "--cache", metavar="NAME", shell_complete=completed_by(cache_names),
        help=f"Skip steps that change little (faster, not exact): {', '.join(cache_names())}.",
    )(command)  # fmt: skip
    return click.option(
        "--lora", multiple=True, type=Lora(), metavar="FILE[=SCALE]",
        help="Add a LoRA: a safetensors file, or owner/name/file.safetensors on the Hub. Repeatable.",
    )(command)  # fmt: skip


def context_parallel_options(command: Function) -> Function:
    """Add ``--context-parallel`` and ``--context-parallel-mode``: one video on several GPUs."""
    command = click.option(
        "--context-parallel-mode", type=click.Choice(["ulysses", "ring"]), show_default="ulysses",
        help="How GPUs split attention: ulysses by heads; ring by tokens, for GPU counts that do not divide the heads.",
    )(command)  # fmt: skip
    return click.option(
        "--context-parallel", type=click.IntRange(min=1), metavar="N",
        help="Generate one video on N GPUs of this machine together; with a CPU profile, in N processes.",
    )(command)  # fmt: skip


def data_dir_option(command: Function) -> Function:
    """Add ``--data-dir``, the folder of a job store."""
    return click.option(
        "--data-dir", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
        show_default="HUNYUAN_LOCAL_DATA_DIR, or the system's data folder", help="Folder of the jobs and their videos.",
    )(command)  # fmt: skip


def worker_options(command: Function) -> Function:
    """Add ``--lease``, ``--checkpoint-every`` and ``--min-free-gib``, the options of workers."""
    command = click.option(
        "--min-free-gib", "min_free_bytes", type=click.FloatRange(min=0), default=2, show_default=True, metavar="GIB",
        callback=lambda context, parameter, gib: round(gib * GIB), help="Accept and start no job with less free disk "
        "space.",
    )(command)  # fmt: skip
    command = click.option(
        "--checkpoint-every", type=click.IntRange(min=1), metavar="STEPS", show_default="about 30 seconds of work",
        help="Save the state of the unfinished video every STEPS steps.",
    )(command)  # fmt: skip
    return click.option(
        "--lease", "lease_s", type=click.FloatRange(min=1), default=30, show_default=True, metavar="SECONDS",
        help="A worker that sends no heartbeat for this long loses its job.",
    )(command)  # fmt: skip


class Lora(LoraType):
    """``FILE`` or ``FILE=SCALE``."""

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
            self.fail(f"{value!r}: the scale after = must be a number from -10 to 10, such as FILE=0.8", param, ctx)


class Duration(DurationType):
    """Seconds, or a number followed by s, m, h or d."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", value)
        if match is None:
            self.fail(f"{value!r}: must be a duration such as 90, 90s, 15m, 12h or 7d", param, ctx)
        return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def backend_options(default: str, help_text: str) -> Callable[[Function], Function]:
    """Add ``--backend`` and the options of hosted services; :func:`backend_from` creates the backend."""

    def decorate(command: Function) -> Function:
        command = click.option(
            "--timeout", "timeout_s", type=float, metavar="SECONDS", show_default="3600",
            help="Time limit for a hosted task.",
        )(command)  # fmt: skip
        command = click.option(
            "--base-url", metavar="URL",
            help="Address of the service, such as your own server. Also read from WAVESPEED_BASE_URL and "
            "NOVITA_BASE_URL.",
        )(command)  # fmt: skip
        command = click.option(
            "--api-key", metavar="KEY",
            help="API key of the service. Prefer WAVESPEED_API_KEY or NOVITA_API_KEY: other users of this machine can "
            "see command lines.",
        )(command)  # fmt: skip
        names = f"{help_text}: {', '.join(backend_names())}."
        return click.option(
            "--backend", default=default, show_default=True, shell_complete=completed_by(backend_names), help=names
        )(command)

    return decorate


def backend_from(flags: dict[str, Any]) -> Backend:
    """Create the backend that the options above describe, and remove them from ``flags``.

    Raises:
        ConfigError: a name is unknown, or an option belongs to another backend.
    """
    names = (
        "model", "revision", "profile", "lora", "cache", "context_parallel", "context_parallel_mode",
        "api_key", "base_url", "timeout_s",
    )  # fmt: skip
    return get_backend(flags.pop("backend"), **{name: flags.pop(name, None) or None for name in names})


def refuse_missing_libraries(backend: Backend) -> None:
    """Check installed extras and LoRA and GGUF files before the model loads; hosted services need none.

    Raises:
        ConfigError: an extra is not installed, or a file does not exist.
        ModelLoadError: a file is damaged, or belongs to another architecture.
    """
    if backend.config is not None:
        from ...planner.added_files import check_added_files

        require_libraries(backend.config, backend.profile)
        check_added_files(backend.config)


def _value_type(annotation: Any) -> type | click.Choice[Any]:
    """The click type of a field: ``int`` for ``int | None``, a choice for a ``Literal``."""
    if typing.get_origin(annotation) is typing.Literal:
        return click.Choice(typing.get_args(annotation))
    members = [member for member in typing.get_args(annotation) if member is not type(None)]
    return _value_type(members[0]) if members else annotation
