"""JSON Schemas of the submissions in each dialect. They only document the server; they do not validate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..capabilities import Capabilities
from ..schema import MAX_SIDE, SIZE_MULTIPLE
from . import novita, novita_models, openai, openai_models, wavespeed, wavespeed_image, wavespeed_models
from .base import Body

_DIALECTS = (wavespeed.NAME, novita.NAME, openai.NAME)
_SIDE = {"minimum": SIZE_MULTIPLE, "maximum": MAX_SIDE, "multipleOf": SIZE_MULTIPLE}


def submission_schema(dialect: str, relaxed: bool, longest_prompt: int) -> dict[str, Any]:
    """JSON Schema of a submission in a dialect, with the ranges that a server enforces.

    Args:
        relaxed: as in ``request_from_wire``.
        longest_prompt: maximum prompt length in characters.
    """
    match dialect:
        case wavespeed.NAME:
            return _wavespeed_schema(Capabilities() if relaxed else wavespeed.CAPABILITIES, longest_prompt)
        case novita.NAME:
            return _novita_schema(Capabilities() if relaxed else novita.CAPABILITIES, longest_prompt)
        case openai.NAME:
            return _openai_schema(openai.CAPABILITIES, longest_prompt)
    raise ValueError(f"dialect={dialect!r}: unknown dialect; use {', '.join(_DIALECTS)}")


def image_schema(relaxed: bool, longest_prompt: int) -> dict[str, Any]:
    """JSON Schema of a submission with an image in WaveSpeed's dialect; arguments as for :func:`submission_schema`."""
    limits = Capabilities() if relaxed else wavespeed.IMAGE_CAPABILITIES
    ranges = _wavespeed_ranges(limits) | ({} if relaxed else {"duration": {"enum": list(wavespeed_image.SECONDS)}})
    return _narrowed(wavespeed_models.ImageSubmissionBody, ranges, longest_prompt)


def form_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema for a form, in which a field may be absent but never null, and an image may be a file."""
    fields = {name: without_null(field) for name, field in schema["properties"].items()}
    fields["input_reference"] = {"type": "string", "format": "binary"}
    return {**schema, "properties": fields}


def _wavespeed_schema(limits: Capabilities, longest_prompt: int) -> dict[str, Any]:
    return _narrowed(wavespeed_models.SubmissionBody, _wavespeed_ranges(limits), longest_prompt)


def _wavespeed_ranges(limits: Capabilities) -> dict[str, Mapping[str, Any]]:
    sizes = [f"{width}*{height}" for width, height in limits.sizes or ()]
    size = {"enum": sizes} if sizes else {"pattern": r"^\d{2,5}\*\d{2,5}$"}
    return {"size": size, "num_inference_steps": _span(*limits.steps), "seed": _span(-1, limits.seeds[1])}


def _novita_schema(limits: Capabilities, longest_prompt: int) -> dict[str, Any]:
    sides = sorted({side for size in limits.sizes or () for side in size})
    side = {"enum": sides} if sides else _SIDE
    assert limits.frames is not None  # this dialect limits the number of frames
    ranges = {"width": side, "height": side, "steps": _span(*limits.steps), "seed": _span(-1, limits.seeds[1])}
    ranges["frames"] = _span(*limits.frames)
    pairs = [{"properties": {"width": {"const": w}, "height": {"const": h}}} for w, h in limits.sizes or ()]
    return ({"oneOf": pairs} if pairs else {}) | _narrowed(
        novita_models.SubmissionBody, ranges, min(longest_prompt, limits.prompt_characters or longest_prompt)
    )


def _openai_schema(limits: Capabilities, longest_prompt: int) -> dict[str, Any]:
    assert limits.frames is not None  # this dialect limits the number of frames
    scale = {"minimum": 0, "maximum": 100}
    ranges: dict[str, Mapping[str, Any]] = {
        "size": {"pattern": r"^\d{2,5}x\d{2,5}$"},
        "width": _SIDE,
        "height": _SIDE,
        "num_frames": _span(*limits.frames),
        "num_inference_steps": _span(*limits.steps),
        "seed": _span(-1, limits.seeds[1]),
        "fps": _span(1, 240),
        "guidance_scale": scale,
        "true_cfg_scale": scale | {"minimum": 1},
        "flow_shift": {"exclusiveMinimum": 0, "maximum": 100},
        "negative_prompt": {"maxLength": longest_prompt},
    }
    schema = _narrowed(openai_models.SubmissionBody, ranges, longest_prompt)
    options = [{"type": "object"}, {"type": "string", "pattern": r"^\s*\{"}, {"type": "null"}]
    extras = {"description": "Additional fields as an object or a JSON string.", "anyOf": options}
    schema["properties"] |= {name: extras for name in sorted(openai.EXTRAS)}
    address = {"type": "string", "description": "URL, data URI or base64 of the first frame."}
    reference = {"type": "object", "properties": {"image_url": address}, "required": ["image_url"]}
    schema["properties"]["input_reference"] = {"anyOf": [address, reference, {"type": "null"}]}
    return schema


def _narrowed(model: type[Body], ranges: Mapping[str, Mapping[str, Any]], longest_prompt: int) -> dict[str, Any]:
    """The schema of a received body, with the given ranges added to its fields."""
    schema = model.model_json_schema()
    fields = _inlined(schema["properties"], schema.pop("$defs", {}))
    for name, span in ranges.items():
        options = fields[name].get("anyOf")
        for field in [fields[name]] if options is None else [x for x in options if x["type"] != "null"]:
            field |= span
    fields["prompt"] = {"type": "string", "minLength": 1, "maxLength": longest_prompt, "pattern": r"\S"}
    return schema | {"properties": fields, "required": sorted({*schema.get("required", []), "prompt"})}


def _inlined(part: Any, definitions: Mapping[str, Any]) -> Any:
    """The schema with references replaced by their definitions, since references break inside a larger document."""
    if isinstance(part, list):
        return [_inlined(item, definitions) for item in part]
    if not isinstance(part, dict):
        return part
    own = {key: _inlined(value, definitions) for key, value in part.items() if key != "$ref"}
    if "$ref" not in part:
        return own
    return _inlined(definitions[part["$ref"].removeprefix("#/$defs/")], definitions) | own


def without_null(field: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a field that may be absent but never null."""
    options = [option for option in field.get("anyOf", []) if option.get("type") != "null"]
    rest = {key: value for key, value in field.items() if key not in ("anyOf", "default")}
    return rest | (options[0] if len(options) == 1 else {"anyOf": options} if options else {})


def _span(low: int, high: int | None) -> dict[str, int]:
    return {"minimum": low} if high is None else {"minimum": low, "maximum": high}
