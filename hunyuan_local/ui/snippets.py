"""The form's request as code: curl in each dialect, Python, and the command line.

:mod:`hunyuan_local.wires` builds the bodies. Settings that a dialect does not support are listed, not silently dropped.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..capabilities import Capabilities
from ..config import ModelConfig, model_names
from ..errors import RequestLossError
from ..schema import GenerationRequest
from ..wires import novita, openai, wavespeed
from ..wires.base import WireRequest


class _Dialect(Protocol):
    """The attributes of a dialect module in :mod:`hunyuan_local.wires` that snippets use."""

    SUBMIT_PATH: str
    RESULT_PATH: str
    CAPABILITIES: Capabilities

    def request_to_wire(self, request: GenerationRequest, *, allow_loss: bool = False) -> WireRequest: ...


# The first two are the formats of hosted services; the last supports every field of a request.
_TITLES: tuple[tuple[_Dialect, str], ...] = (
    (wavespeed, "curl, WaveSpeed's format"),
    (novita, "curl, Novita's format"),
    (openai, "curl, OpenAI's format"),
)
KEY_VARIABLE = "API_KEY"
_IMAGE_URL = "https://example.com/image.png"


@dataclass(frozen=True)
class Snippet:
    """One code snippet; ``losses`` are sentences about the settings that it does not express."""

    title: str
    text: str
    losses: tuple[str, ...] = ()


def write_snippets(
    request: GenerationRequest, *, base_url: str, with_key: bool, model: ModelConfig, profile: str
) -> list[Snippet]:
    """The snippets for a request.

    Args:
        base_url: of the server, without a trailing slash.
        with_key: whether the server requires an API key; snippets read it from ``$API_KEY`` and never contain it.
        model: its defaults replace those of a dialect in fields that the request leaves open.
        profile: for Python and the command line; omitted if empty.
    """
    known_as = model.name if model.name in model_names() else model.source  # a folder, or a Hub id
    missing = _server_options(request, model)
    return [
        *(_curl(dialect, title, request, model, base_url, with_key) for dialect, title in _TITLES),
        Snippet("Python", _python(request, model, known_as, profile), missing),
        Snippet("Command line", _command_line(request, model, known_as, profile), missing),
    ]


def _server_options(request: GenerationRequest, model: ModelConfig) -> tuple[str, ...]:
    """Server options that affect the video and that the Python and command line snippets do not contain."""
    found = []
    if request.awaits_rewriting:
        found.append(
            f"rewrite={request.rewrite!r} uses the default language model; --rewrite-model or --rewrite-endpoint "
            "(in Python RewriteConfig) selects the server's"
        )
    if model.lora:
        files = " ".join(f"--lora {shlex.quote(f'{item.path}={item.scale}')}" for item in model.lora)
        found.append(f"the server's LoRAs are not included: {files}")
    return tuple(found)


def _curl(
    dialect: _Dialect, title: str, request: GenerationRequest, model: ModelConfig, base_url: str, with_key: bool
) -> Snippet:
    if model.takes_image and request.image is None:
        return Snippet(title, f"# Choose an image first: the videos of {model.name} begin with one.")
    # Send the model's defaults where the dialect has its own defaults, since the form means the model's.
    defaults = dialect.CAPABILITIES.of(request).defaults
    filled = {name: value for name, value in dict(model.defaults).items() if name in defaults}
    with_file = dialect is openai and request.image is not None
    try:
        asked = request.replace(image=None, image_fit=None) if with_file else request
        wire = dialect.request_to_wire(asked.with_defaults(filled, model.image_sizes), allow_loss=True)
    except RequestLossError as error:
        return Snippet(title, "", tuple(str(problem) for problem in error.problems))
    key = [f'--header "Authorization: Bearer ${KEY_VARIABLE}"'] if with_key else []
    path = wavespeed.submit_path(request) if dialect is wavespeed else dialect.SUBMIT_PATH
    about, body = _form_body(wire.body, request) if with_file else _json_body(wire.body, request)
    submit = [f"curl {shlex.quote(base_url + path)}", *key, *body]
    look = [f'curl "{base_url}{_result_path(dialect)}"', *key]
    text = f"{about}{_multiline(submit)}\n\n# Its state, with ID set to the id in the response\n{_multiline(look)}"
    return Snippet(
        title, text, tuple(f"{loss.field}={loss.value!r} is {loss.fate}: {loss.rule}" for loss in wire.losses)
    )


def _json_body(body: Mapping[str, Any], request: GenerationRequest) -> tuple[str, list[str]]:
    """A comment on the image, and curl's options for a body in JSON."""
    about = ""
    if request.image is not None:
        body = {**body, "image": _IMAGE_URL}
        about = f"# Replace {_IMAGE_URL} by the address of your image, or by its base64\n"
    data = shlex.quote(json.dumps(body, ensure_ascii=False, indent=4))
    return about, ["--header 'Content-Type: application/json'", f"--data {data}"]


def _form_body(body: Mapping[str, Any], request: GenerationRequest) -> tuple[str, list[str]]:
    """A comment on the image, and curl's options for a form with its file."""
    fields = dict(body) if request.image_fit is None else {**body, "image_fit": request.image_fit}
    parts = [f"--form-string {shlex.quote(f'{name}={value}')}" for name, value in fields.items()]
    return _about_image(request), [*parts, f"--form {openai.IMAGE_FIELD}=@{_image_file(request)}"]


def _result_path(dialect: _Dialect) -> str:
    """The path of a job's state, with the shell variable ``$ID`` as its id."""
    if dialect is novita:
        query = "&".join(f"{name}={value}" for name, value in novita.result_query("$ID").items())
        return f"{novita.RESULT_PATH}?{query}"
    return dialect.RESULT_PATH.format(job_id="$ID")


def _python(request: GenerationRequest, config: ModelConfig, model: str, profile: str) -> str:
    backend = [repr("local"), f"model={model!r}", *([f"profile={profile!r}"] if profile else [])]
    fields = "".join(f"    {name}={value!r},\n" for name, value in _given(request, config).items())
    return (_about_image(request) if config.takes_image else "") + (
        "from pathlib import Path\n\n"
        "from hunyuan_local import GenerationContext, GenerationRequest, get_backend\n\n"
        f"backend = get_backend({', '.join(backend)})\n"
        f"request = GenerationRequest(\n{fields})\n"
        'result = backend.generate(request, GenerationContext(output=Path("video.mp4")))\n'
        "print(result.path, result.seed)"
    )


def _command_line(request: GenerationRequest, config: ModelConfig, model: str, profile: str) -> str:
    fields = _given(request, config)
    prompt = fields.pop("prompt")
    flags = {"model": model, **({"profile": profile} if profile else {}), **fields}
    parts = [f"--{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in flags.items()]
    # After "--", a prompt may begin with a dash.
    call = _multiline(["hunyuan-local generate", *parts, f"-- {shlex.quote(prompt)}"])
    return f"{_about_image(request)}{call}" if config.takes_image else call


def _given(request: GenerationRequest, model: ModelConfig) -> dict[str, Any]:
    """The fields that are set, with a file name as the image, which the server knows without its name."""
    given = request.model_dump(exclude_defaults=True)
    return given | {"image": _image_file(request)} if model.takes_image else given


def _image_file(request: GenerationRequest) -> str:
    if request.image is None:
        return "image.png"
    ending = {"JPEG": "jpg", "JPEG2000": "jp2"}.get(request.image.format, request.image.format.lower())
    return f"image.{ending}"


def _about_image(request: GenerationRequest) -> str:
    """A comment on the image's file, for Python and shells."""
    image = request.image
    about = "" if image is None else f", {image.width}x{image.height}, SHA-256 {image.sha256}"
    return f"# {_image_file(request)} is the file of your image{about}\n"


def _multiline(parts: list[str]) -> str:
    """One shell command, continued over several lines."""
    return " \\\n  ".join(parts)
