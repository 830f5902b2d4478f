"""The flags of what stands before and after the making of a video: who rewrites prompts, and who checks frames."""

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
from .options import Function

Config = TypeVar("Config", RewriteConfig, SafetyConfig)

# Of each flag the field that it fills.
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
    """``--rewrite-*`` and ``--safety*``; :func:`rewriting_from` and :func:`safety_from` read them."""
    safety, rewriting = SafetyConfig(), RewriteConfig()
    options = [
        click.option("--rewrite-model", metavar="ID", help="Language model that rewrites prompts: a Hub id, a folder, "
                     f"or its name at the endpoint. Default: {DEFAULT_MODEL}, or the endpoint's first."),
        click.option("--rewrite-revision", metavar="REVISION", help="Branch, tag or commit of that Hub id."),
        click.option("--rewrite-endpoint", metavar="URL", help="Have a server with OpenAI's chat completions rewrite, "
                     "such as http://127.0.0.1:8080/v1; its key is taken from HUNYUAN_LOCAL_REWRITE_API_KEY."),
        click.option("--rewrite-timeout", type=float, metavar="SECONDS",
                     help=f"A rewriting may take so long, {rewriting.timeout_s:g} if left out."),
        click.option("--rewrite-failure", type=click.Choice(typing.get_args(FailurePolicy)),
                     help="If a prompt cannot be rewritten: fail, also taken if left out, or go on with the original."),
        click.option("--safety", type=click.Choice(typing.get_args(SafetyMode)), help="Have a classifier look at "
                     "frames of the video: flag says what it finds, block also withholds the file; else off."),
        click.option("--safety-model", metavar="ID", help=f"The classifier, a Hub id or a folder; {safety.model_id} if "
                     "left out."),
        click.option("--safety-revision", metavar="REVISION", help="Branch, tag or commit of that Hub id."),
        click.option("--safety-label", multiple=True, metavar="LABEL", help="Which of its labels counts; may be given "
                     f"several times; {', '.join(safety.labels)} if left out."),
        click.option("--safety-threshold", type=float, metavar="SCORE",
                     help=f"From which score on, 0 to 1; {safety.threshold:g} if left out."),
        click.option("--safety-frames", type=int, metavar="N",
                     help=f"Look at so many frames, evenly spaced; {safety.frames} if left out."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def refuse_idle_rewriters(request: GenerationRequest, flags: dict[str, Any]) -> None:
    """Refuse to name a rewriter where nothing is rewritten.

    Raises:
        ConfigError: names the flag.
    """
    idle = [name for name in _REWRITING if flags.get(name) is not None]
    if idle and not request.awaits_rewriting:
        raise ConfigError(f"{idle[0]}={flags[idle[0]]!r}: says nothing without --rewrite normal or --rewrite master")


def rewriting_from(flags: dict[str, Any]) -> RewriteConfig:
    """Who rewrites prompts, as the flags say; takes them out of ``flags``.

    Raises:
        ConfigError: a value is not allowed.
    """
    return _config(RewriteConfig, _REWRITING, flags)


def safety_from(flags: dict[str, Any]) -> SafetyConfig:
    """How frames are checked, as the flags say; takes them out of ``flags``.

    Raises:
        ConfigError: a value is not allowed, or nothing is to be checked by what they say.
    """
    idle = [name for name in _SAFETY if name != "safety" and flags.get(name) not in (None, ())]
    if idle and not flags.get("safety"):
        raise ConfigError(f"{idle[0]}={flags[idle[0]]!r}: says nothing without --safety flag or --safety block")
    return _config(SafetyConfig, _SAFETY, flags)


def guards_from(flags: dict[str, Any]) -> dict[str, RewriteConfig | SafetyConfig]:
    """Both as fields of a worker's options, ``rewriting`` and ``safety``; takes them out of ``flags``.

    Raises:
        ConfigError: see :func:`rewriting_from` and :func:`safety_from`.
    """
    return {"rewriting": rewriting_from(flags), "safety": safety_from(flags)}


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
