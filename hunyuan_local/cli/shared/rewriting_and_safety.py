"""Options for prompt rewriting and for the safety check of frames."""

from __future__ import annotations

import typing
from typing import Any, TypeVar

import rich_click as click
from pydantic import ValidationError

from ...config import RewriteConfig, SafetyConfig
from ...config.rewriting import DEFAULT_MODEL, FailurePolicy
from ...config.safety import SafetyMode
from ...errors import ConfigError
from ...schema import GenerationRequest
from .options import Function, config_range

Config = TypeVar("Config", RewriteConfig, SafetyConfig)

# Option name -> config field.
_REWRITING = {
    "rewrite_model": "model_id",
    "rewrite_revision": "revision",
    "rewrite_endpoint": "endpoint",
    "rewrite_timeout": "timeout_s",
    "rewrite_failure": "on_failure",
}
_SAFETY = {
    "safety": "mode",
    "safety_model": "model_id",
    "safety_revision": "revision",
    "safety_label": "labels",
    "safety_threshold": "threshold",
    "safety_frames": "frames",
}


def guard_options(command: Function) -> Function:
    """Add ``--rewrite-*`` and ``--safety*``; :func:`rewriting_from` and :func:`safety_from` read them."""
    safety, rewriting = SafetyConfig(), RewriteConfig()
    options = [
        click.option("--rewrite-model", metavar="ID", show_default=f"{DEFAULT_MODEL}, or the endpoint's first model",
                     help="Language model that rewrites prompts: a Hub id, a folder, or a model name at the endpoint."),
        click.option("--rewrite-revision", metavar="REVISION", help="Branch, tag or commit of the language model."),
        click.option("--rewrite-endpoint", metavar="URL", help="Rewrite with an OpenAI-compatible server, such as "
                     "http://127.0.0.1:8080/v1. Its API key is read from HUNYUAN_LOCAL_REWRITE_API_KEY."),
        click.option("--rewrite-timeout", type=float, metavar="SECONDS", show_default=f"{rewriting.timeout_s:g}",
                     help=f"Time limit for rewriting a prompt.{_range(RewriteConfig, 'timeout_s')}"),
        click.option("--rewrite-failure", type=click.Choice(typing.get_args(FailurePolicy)),
                     show_default=rewriting.on_failure,
                     help="If a prompt cannot be rewritten, fail or continue with the original."),
        click.option("--safety", type=click.Choice(typing.get_args(SafetyMode)), show_default=safety.mode,
                     help="Check frames with an image classifier: flag reports the result, block also withholds the "
                     "video."),
        click.option("--safety-model", metavar="ID", show_default=safety.model_id,
                     help="Image classifier: a Hub id or a folder."),
        click.option("--safety-revision", metavar="REVISION", help="Branch, tag or commit of the classifier."),
        click.option("--safety-label", multiple=True, metavar="LABEL", show_default=", ".join(safety.labels),
                     help="Label of the classifier that counts as unsafe. Repeatable."),
        click.option("--safety-threshold", type=float, metavar="SCORE", show_default=f"{safety.threshold:g}",
                     help=f"Score from which a frame is flagged.{_range(SafetyConfig, 'threshold')}"),
        click.option("--safety-frames", type=int, metavar="N", show_default=str(safety.frames),
                     help=f"Number of frames to check, evenly spaced.{_range(SafetyConfig, 'frames')}"),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def refuse_idle_rewriters(request: GenerationRequest, flags: dict[str, Any]) -> None:
    """Refuse ``--rewrite-*`` options if the prompt is not rewritten.

    Raises:
        ConfigError: names the option.
    """
    idle = [name for name in _REWRITING if flags.get(name) is not None]
    if idle and not request.awaits_rewriting:
        raise ConfigError(f"{idle[0]}={flags[idle[0]]!r}: has no effect without --rewrite normal or --rewrite master")


def rewriting_from(flags: dict[str, Any]) -> RewriteConfig:
    """Build the rewriting config from the options, and remove them from ``flags``.

    Raises:
        ConfigError: a value is not allowed.
    """
    return _config(RewriteConfig, _REWRITING, flags)


def safety_from(flags: dict[str, Any]) -> SafetyConfig:
    """Build the safety config from the options, and remove them from ``flags``.

    Raises:
        ConfigError: a value is not allowed, or ``--safety`` is missing.
    """
    idle = [name for name in _SAFETY if name != "safety" and flags.get(name) not in (None, ())]
    if idle and not flags.get("safety"):
        raise ConfigError(f"{idle[0]}={flags[idle[0]]!r}: has no effect without --safety flag or --safety block")
    return _config(SafetyConfig, _SAFETY, flags)


def guards_from(flags: dict[str, Any]) -> dict[str, RewriteConfig | SafetyConfig]:
    """Build both configs as the worker options ``rewriting`` and ``safety``, and remove them from ``flags``.

    Raises:
        ConfigError: a value is not allowed, or ``--safety`` is missing.
    """
    return {"rewriting": rewriting_from(flags), "safety": safety_from(flags)}


def _range(kind: type[Config], name: str) -> str:
    return config_range(kind.model_fields[name])


def _config(kind: type[Config], names: dict[str, str], flags: dict[str, Any]) -> Config:
    given = {flag: flags.pop(flag, None) for flag in names}
    try:
        return kind(**{names[flag]: value for flag, value in given.items() if value not in (None, ())})
    except ValidationError as error:
        fields = {field: flag for flag, field in names.items()}
        problems = [
            f"{fields[str(item['loc'][0])]}={item['input']!r}: {item['msg'].lower()}" for item in error.errors()
        ]
        raise ConfigError("; ".join(problems)) from error
