"""The request: what it accepts, what it refuses, and with which messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hunyuan_local.errors import InvalidRequestError
from hunyuan_local.resolved import ResolvedRequest
from hunyuan_local.schema import GenerationRequest, parse_size


def problems(**fields: object) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        GenerationRequest(**({"prompt": "a cat"} | fields))
    return str(caught.value)


def test_only_the_prompt_is_required() -> None:
    assert GenerationRequest(prompt="a cat").prompt == "a cat"


@pytest.mark.parametrize(
    ("fields", "awaits"),
    [
        ({}, False),
        ({"rewrite": "off"}, False),
        ({"rewrite": "normal"}, True),
        ({"rewrite": "master"}, True),
        ({"rewrite": "master", "original_prompt": "a fox"}, False),
    ],
)
def test_a_request_awaits_rewriting_until_it_has_an_original(fields: dict[str, str], awaits: bool) -> None:
    assert GenerationRequest(prompt="a cat", **fields).awaits_rewriting == awaits


def test_a_request_is_frozen() -> None:
    with pytest.raises(ValidationError):
        GenerationRequest(prompt="a cat").width = 16


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": ""}, ["prompt=''", "empty"]),
        ({"prompt": " \n\t"}, ["prompt", "empty"]),
        ({"width": 1281}, ["width=1281", "multiple of 16", "1280 and 1296"]),
        ({"height": 5}, ["height=5", "multiple of 16", "nearest is 16"]),
        ({"height": 0}, ["height=0", "nearest is 16"]),
        ({"width": -16}, ["width=-16", "nearest is 16"]),
        ({"width": 16400}, ["width=16400", "16384"]),
        ({"num_frames": 86}, ["num_frames=86", "4k+1", "85 and 89"]),
        ({"num_frames": 0}, ["num_frames=0", "4k+1", "nearest is 1"]),
        ({"num_inference_steps": 0}, ["num_inference_steps=0", "1 to 100", "nearest is 1"]),
        ({"num_inference_steps": 101}, ["num_inference_steps=101", "nearest is 100"]),
        ({"seed": -1}, ["seed=-1", "0 to 2^64-1", "leave it out"]),
        ({"seed": 2**64}, [f"seed={2**64}", f"nearest is {2**64 - 1}"]),
        ({"guidance_scale": float("nan")}, ["guidance_scale=nan", "finite"]),
        ({"rewrite": "more"}, ["rewrite='more'", "'off', 'normal' or 'master'"]),
        ({"original_prompt": "a fox"}, ["original_prompt='a fox'", "is set by rewrite", "leave it out"]),
        ({"original_prompt": "a fox", "rewrite": "off"}, ["original_prompt='a fox'", "is set by rewrite"]),
        ({"guidance_scale": 101.0}, ["guidance_scale=101.0", "nearest is 100"]),
        ({"true_cfg_scale": 0.5}, ["true_cfg_scale=0.5", "nearest is 1"]),
        ({"flow_shift": 0.0}, ["flow_shift=0.0", "above 0"]),
        ({"fps": 0}, ["fps=0", "1 to 240"]),
        ({"seed": True}, ["seed=True", "integer"]),
        ({"fps": "24"}, ["fps='24'", "integer"]),
        ({"prompt": 3}, ["prompt=3", "string"]),
        ({"steps": 3}, ["steps=3", "unknown field", "did you mean num_inference_steps"]),
        ({"widht": 16}, ["widht=16", "did you mean width"]),
    ],
)
def test_a_refusal_names_field_value_rule_and_remedy(fields: dict, words: list[str]) -> None:
    message = problems(**fields)
    assert [word for word in words if word not in message] == []


def test_all_refused_fields_are_named_at_once() -> None:
    message = problems(width=17, num_frames=2, seed=-5)
    assert "width" in message and "num_frames" in message and "seed" in message


@pytest.mark.parametrize("seed", [0, 2**64 - 1])
def test_seed_range_is_inclusive(seed: int) -> None:
    assert GenerationRequest(prompt="a cat", seed=seed).seed == seed


@given(st.integers(min_value=1, max_value=10_000))
def test_frames_are_taken_exactly_when_4k_plus_1_up_to_4097(frames: int) -> None:
    try:
        GenerationRequest(prompt="a cat", num_frames=frames)
        taken = True
    except InvalidRequestError:
        taken = False
    assert taken == (frames % 4 == 1 and frames <= 4097)


@given(st.integers(min_value=1, max_value=20_000))
def test_the_nearest_sizes_that_a_refusal_names_are_taken(width: int) -> None:
    try:
        GenerationRequest(prompt="a cat", width=width)
    except InvalidRequestError as error:
        named = str(error).split("nearest ")[1].replace("is", "").replace("are", "").split(" and ")
        for value in named:
            assert GenerationRequest(prompt="a cat", width=int(value)).width == int(value)


def test_defaults_fill_only_what_was_not_given() -> None:
    request = GenerationRequest(prompt="a cat", width=320).with_defaults({"width": 1280, "height": 720})
    assert (request.width, request.height) == (320, 720)


def test_replace_checks_again() -> None:
    with pytest.raises(InvalidRequestError):
        GenerationRequest(prompt="a cat").replace(width=3)


def test_json_round_trip() -> None:
    request = GenerationRequest(prompt="a cat", seed=2**64 - 1, guidance_scale=6)
    assert GenerationRequest(**__import__("json").loads(request.model_dump_json())) == request


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_half_of_a_surrogate_pair_is_refused_with_its_place(field: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"{field}=.*character 3 is half of a surrogate pair"):
        GenerationRequest(**{"prompt": "a fox", field: "a \ud800 fox"})


@pytest.mark.parametrize("size", ["1280*720", "1280x720"])
def test_a_size_is_width_and_height(size: str) -> None:
    assert parse_size(size) == (1280, 720)


@pytest.mark.parametrize("size", ["1280", "1280:720", " 1280*720", f"{'9' * 5000}*720", 1280, None])
def test_what_is_no_size_is_refused(size: object) -> None:
    with pytest.raises(InvalidRequestError, match=r"size=.*: must be WIDTH"):
        parse_size(size)


DEFAULTS = {
    "width": 1280, "height": 720, "num_frames": 129, "num_inference_steps": 50, "guidance_scale": 6.0,
    "flow_shift": 7.0, "fps": 24,
}  # fmt: skip


def test_a_resolved_request_has_the_defaults_where_nothing_was_given() -> None:
    request = ResolvedRequest.of(GenerationRequest(prompt="a cat", seed=1, fps=12), DEFAULTS)
    assert (request.width, request.fps) == (1280, 12)


def test_a_field_that_is_still_open_keeps_a_request_from_being_resolved() -> None:
    with pytest.raises(InvalidRequestError, match="seed=None"):
        ResolvedRequest.of(GenerationRequest(prompt="a cat"), DEFAULTS)


def test_a_resolved_request_stays_one_when_a_field_is_changed() -> None:
    request = ResolvedRequest.of(GenerationRequest(prompt="a cat", seed=1), DEFAULTS)
    with pytest.raises(InvalidRequestError, match="width=None"):
        request.replace(width=None)


def test_a_resolved_request_is_written_like_any_other() -> None:
    request = GenerationRequest(prompt="a cat", seed=1).with_defaults(DEFAULTS)
    assert ResolvedRequest.of(request, {}).model_dump_json() == request.model_dump_json()


def test_a_resolved_request_equals_the_one_that_it_was_made_from() -> None:
    request = GenerationRequest(prompt="a cat", seed=1).with_defaults(DEFAULTS)
    assert len({request, ResolvedRequest.of(request, {})}) == 1
