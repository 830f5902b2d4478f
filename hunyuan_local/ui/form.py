"""The form of the page: labels of its fields, and conversion between their texts and a request.

All fields are text fields, so that only the schema validates them: number fields of browsers return nothing for input
they reject, and round large seeds. The text of an image is its SHA-256. Independent of Gradio.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import FieldProblem, HunyuanLocalError, InvalidRequestError, StoreError
from ..images import InputImage
from ..schema import GenerationRequest, parse_size
from ..server.error_answers import SEE_LOG

# In the order on the page.
LABELS = {
    "prompt": "Prompt",
    "image": "Image",
    "image_fit": "Image fit",
    "model": "Model",
    "size": "Size",
    "num_frames": "Frames",
    "num_inference_steps": "Steps",
    "guidance_scale": "Guidance",
    "flow_shift": "Flow shift",
    "seed": "Seed",
    "profile": "Profile",
    "rewrite": "Rewrite the prompt",
    "negative_prompt": "Negative prompt",
    "true_cfg_scale": "True CFG",
    "fps": "Frames per second",
}
NAMES = tuple(LABELS)
# The sizes that the model was trained on (Tencent's README) and some smaller ones, in both orientations.
SIZES = (
    "1280x720", "720x1280", "1104x832", "832x1104", "960x960", "960x544", "544x960", "832x624", "624x832", "720x720",
    "848x480", "480x848", "640x368", "368x640", "512x320", "320x512",
)  # fmt: skip
_NOT_OF_THE_REQUEST = ("model", "profile", "size")
_WHOLE = re.compile(r"[+-]?[0-9]{1,30}")
_REAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_NAMED = re.compile(r"^([a-z_]+)='([^']*)':")  # the start of a ConfigError's message: option and value
_NO_VALUE_SHOWN = ("prompt", "negative_prompt", "original_prompt", "image")

Fields = Mapping[str, str]


def read_request(fields: Fields, find_image: Callable[[str], InputImage]) -> GenerationRequest:
    """The request in the fields; empty fields are left to the model's defaults.

    Args:
        find_image: returns the image with a SHA-256; raises ValueError with the rule if there is none.

    Raises:
        InvalidRequestError: lists every field that is not a number, that the schema refuses, or whose image is missing.
    """
    problems: list[FieldProblem] = []
    given: dict[str, Any] = {}
    for name in NAMES:
        text = fields.get(name) or ""
        if name in _NOT_OF_THE_REQUEST or (name != "prompt" and not text.strip()):
            continue
        try:
            given[name] = find_image(text) if name == "image" else _read(name, text)
        except ValueError as error:
            problems.append(FieldProblem(name, text, str(error)))
    try:
        given |= _read_size(fields.get("size") or "")
    except InvalidRequestError as error:
        problems += error.problems
    try:
        request = GenerationRequest(**given)
    except InvalidRequestError as error:
        problems += error.problems
    if problems:
        raise InvalidRequestError(problems)
    return request


def write_fields(request: GenerationRequest, model: str, profile: str) -> dict[str, str]:
    """The field texts that reproduce a request, with the prompt as the user wrote it."""
    texts = {name: _write(name, getattr(request, name)) for name in NAMES if name not in _NOT_OF_THE_REQUEST}
    texts["prompt"] = request.original_prompt or request.prompt
    sides = (request.width, request.height)
    size = "" if None in sides else "x".join(map(str, sides))
    return {name: ({"model": model, "profile": profile, "size": size} | texts)[name] for name in NAMES}


def sentences(error: HunyuanLocalError) -> list[str]:
    """The sentences that the page shows for an error, one per field, with the form's labels."""
    if isinstance(error, StoreError):  # its message contains local paths
        return [f"The job store cannot be used; {SEE_LOG}."]
    if not isinstance(error, InvalidRequestError):
        return [_as_sentence(_NAMED.sub(lambda found: f"{_label_of(found[1])} {found[2]}:", str(error)))]
    return [_as_sentence(_problem_sentence(problem)) for problem in error.problems]


def _problem_sentence(problem: FieldProblem) -> str:
    label = _label_of(problem.field)
    value = "" if problem.value is None or problem.field in _NO_VALUE_SHOWN else f" {_shorten(str(problem.value))}"
    joint = " " if problem.rule.startswith(("must ", "is ", "has ", "cannot ")) else ": "
    return f"{label}{value}{joint}{problem.rule}"


def _label_of(field: str) -> str:
    return LABELS.get(field, field.replace("_", " ").capitalize())


def _as_sentence(text: str) -> str:
    text = text.strip() or "unknown error"
    return f"{text[0].upper()}{text[1:]}" + ("" if text.endswith((".", "!", "?")) else ".")


def _shorten(text: str, limit: int = 40) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _read_size(text: str) -> dict[str, int]:
    plain = re.sub(r"\s", "", text).lower().replace("×", "x")  # noqa: RUF001 - users may type either
    if not plain:
        return {}
    try:
        width, height = parse_size(plain)
    except InvalidRequestError:
        rule = "must be width x height in pixels, such as 1280x720"
        raise InvalidRequestError([FieldProblem("size", text, rule)]) from None
    return {"width": width, "height": height}


def _read(name: str, text: str) -> Any:
    kind = _kind_of(name)
    if kind is int:
        if _WHOLE.fullmatch(text.strip()) is None:
            raise ValueError("must be an integer; leave empty for the default")
        return int(text)
    if kind is float:
        if _REAL.fullmatch(text.strip()) is None:
            raise ValueError("must be a number, such as 6.5; leave empty for the default")
        return float(text)
    return text


def _write(name: str, value: Any) -> str:
    if value is None or value == GenerationRequest.model_fields[name].default:
        return ""
    if isinstance(value, InputImage):
        return value.sha256
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _kind_of(name: str) -> type:
    """The type of a request field, without None."""
    annotation = GenerationRequest.model_fields[name].annotation
    kinds = typing.get_args(annotation) or (annotation,)
    return next((kind for kind in (int, float) if kind in kinds), str)
