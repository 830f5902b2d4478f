"""What a target supports: each limit, what is lost, and what ``allow_loss`` permits."""

from __future__ import annotations

import pytest
from hypothesis import given
from wire_strategies import requests, unhurried

from hunyuan_local.capabilities import Capabilities, fit, settle
from hunyuan_local.errors import InvalidRequestError, Loss, RequestLossError
from hunyuan_local.schema import GenerationRequest

FEW = Capabilities(
    fields=frozenset({"prompt", "width", "height", "seed", "num_frames", "num_inference_steps"}),
    sizes=((1280, 720), (720, 1280)),
    steps=(2, 30),
    frames=(85, 129),
    seeds=(0, 99),
    prompt_characters=10,
    defaults={"width": 1280, "height": 720, "num_inference_steps": 30},
)


def request(**fields: object) -> GenerationRequest:
    return GenerationRequest(**({"prompt": "a cat"} | fields))


def losses(limits: Capabilities = FEW, **fields: object) -> list[Loss]:
    return list(fit(request(**fields), "there", limits).losses)


def fitted(limits: Capabilities = FEW, **fields: object) -> GenerationRequest:
    return fit(request(**fields), "there", limits).request


@unhurried
@given(requests())
def test_a_target_without_limits_holds_everything_as_it_is(anything: GenerationRequest) -> None:
    held = fit(anything, "there", Capabilities())
    assert (held.request, held.losses, held.possible) == (anything, (), True)


@unhurried
@given(requests())
def test_what_was_fitted_fits(anything: GenerationRequest) -> None:
    once = fit(anything, "there", FEW)
    again = fit(once.request, "there", FEW)
    assert again.request == once.request
    assert all(not loss.permissible for loss in again.losses)


def test_defaults_are_filled_in_and_are_no_loss() -> None:
    assert fitted() == request(width=1280, height=720, num_inference_steps=30)
    assert losses() == []


def test_what_is_given_wins_over_a_default() -> None:
    assert fitted(num_inference_steps=5).num_inference_steps == 5


@pytest.mark.parametrize(
    ("name", "value", "default"),
    [
        ("negative_prompt", "dogs", None),
        ("guidance_scale", 6.0, None),
        ("true_cfg_scale", 2.0, 1.0),
        ("flow_shift", 7.0, None),
        ("fps", 24, None),
    ],
)
def test_a_field_that_the_target_does_not_have_is_left_out(name: str, value: object, default: object) -> None:
    assert losses(**{name: value}) == [Loss(name, value, "there does not support this setting")]
    assert getattr(fitted(**{name: value}), name) == default


def test_true_cfg_that_is_off_is_no_loss_anywhere() -> None:
    assert losses(true_cfg_scale=1.0) == []


@pytest.mark.parametrize("steps", [2, 30])
def test_both_ends_of_the_steps_fit(steps: int) -> None:
    assert losses(num_inference_steps=steps) == []


@pytest.mark.parametrize(("steps", "nearest"), [(1, 2), (31, 30)])
def test_steps_beyond_become_the_nearest(steps: int, nearest: int) -> None:
    assert losses(num_inference_steps=steps) == [Loss("num_inference_steps", steps, "there supports 2 to 30", nearest)]
    assert fitted(num_inference_steps=steps).num_inference_steps == nearest


@pytest.mark.parametrize("frames", [85, 129])
def test_both_ends_of_the_frames_fit(frames: int) -> None:
    assert losses(num_frames=frames) == []


@pytest.mark.parametrize(("frames", "nearest"), [(81, 85), (133, 129)])
def test_frames_beyond_become_the_nearest(frames: int, nearest: int) -> None:
    assert losses(num_frames=frames) == [Loss("num_frames", frames, "there supports 85 to 129", nearest)]
    assert fitted(num_frames=frames).num_frames == nearest


def test_frames_without_an_upper_end() -> None:
    limits = Capabilities(frames=(5, None))
    assert losses(limits, num_frames=4001) == []
    assert losses(limits, num_frames=1) == [Loss("num_frames", 1, "there supports 5 or more", 5)]


@pytest.mark.parametrize("seed", [0, 99])
def test_both_ends_of_the_seeds_fit(seed: int) -> None:
    assert losses(seed=seed) == []


@pytest.mark.parametrize("seed", [100, 2**64 - 1])
def test_a_seed_beyond_is_left_out_and_neither_wrapped_nor_clamped(seed: int) -> None:
    assert [(loss.field, loss.becomes) for loss in losses(seed=seed)] == [("seed", "a random seed")]
    assert fitted(seed=seed).seed is None


def test_a_seed_is_lost_once_where_the_target_has_none() -> None:
    limits = Capabilities(fields=frozenset({"prompt"}), seeds=(0, 99))
    assert losses(limits, seed=100) == [Loss("seed", 100, "there does not support this setting")]


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (720, 1280)])
def test_listed_sizes_fit(width: int, height: int) -> None:
    assert losses(width=width, height=height) == []


@pytest.mark.parametrize(
    ("size", "nearest"), [((960, 544), (1280, 720)), ((544, 960), (720, 1280)), ((640, 640), (1280, 720))]
)
def test_other_sizes_become_one_that_lies_alike(size: tuple[int, int], nearest: tuple[int, int]) -> None:
    width, height = size
    allowed = "there supports 1280x720 and 720x1280"
    assert losses(width=width, height=height) == [
        Loss("size", f"{width}x{height}", allowed, f"{nearest[0]}x{nearest[1]}")
    ]
    made = fitted(width=width, height=height)
    assert (made.width, made.height) == nearest


def test_a_size_that_lies_otherwise_becomes_the_first_one() -> None:
    made = fitted(Capabilities(sizes=((1280, 720),)), width=544, height=960)
    assert (made.width, made.height) == (1280, 720)


@pytest.mark.parametrize(
    ("side", "size"),
    [
        ({"width": 1280}, (1280, 720)),
        ({"width": 720}, (720, 1280)),
        ({"height": 720}, (1280, 720)),
        ({"height": 1280}, (720, 1280)),
    ],
)
def test_one_side_of_a_listed_size_is_completed(side: dict[str, int], size: tuple[int, int]) -> None:
    assert losses(**side) == []
    assert (fitted(**side).width, fitted(**side).height) == size


@pytest.mark.parametrize("defaults", [{}, {"width": 1280, "height": 720}])
def test_one_side_of_no_listed_size_is_a_loss_of_the_size(defaults: dict[str, int]) -> None:
    limits = Capabilities(sizes=((1280, 720),), defaults=defaults)
    assert [(loss.field, loss.value) for loss in losses(limits, width=640)] == [("size", "640x720")]


def test_the_longest_prompt_fits() -> None:
    assert losses(prompt="x" * 10) == []


def test_no_permission_covers_a_longer_prompt() -> None:
    held = fit(request(prompt="x" * 11), "there", FEW)
    assert [(loss.field, loss.permissible) for loss in held.losses] == [("prompt", False)]
    assert not held.possible
    assert held.request.prompt == "x" * 11


def test_a_loss_is_refused_without_permission() -> None:
    with pytest.raises(RequestLossError) as caught:
        settle(request(seed=100, fps=24), "there", FEW)
    assert {loss.field for loss in caught.value.losses} == {"seed", "fps"}


def test_a_permitted_loss_is_reported() -> None:
    held = settle(request(seed=100), "there", FEW, allow_loss=True)
    assert [loss.field for loss in held.losses] == ["seed"]


def test_only_what_no_permission_covers_is_refused_with_permission() -> None:
    with pytest.raises(RequestLossError) as caught:
        settle(request(prompt="x" * 11, seed=100), "there", FEW, allow_loss=True)
    assert [loss.field for loss in caught.value.losses] == ["prompt"]


def test_a_refused_loss_is_an_invalid_request() -> None:
    assert issubclass(RequestLossError, InvalidRequestError)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_inference_steps": 50}, ["num_inference_steps=50", "there supports 2 to 30", "allow_loss=True", "to 30"]),
        ({"seed": 100}, ["seed=100", "there supports 0 to 99", "changed to a random seed"]),
        ({"fps": 24}, ["fps=24", "there does not support this setting", "omitted"]),
        ({"width": 640, "height": 640}, ["size='640x640'", "1280x720 and 720x1280", "changed to 1280x720"]),
        (
            {"prompt": "x" * 11},
            ["prompt='xxxxxxxxxxx'", "is 11 characters long; the limit of there is 10", "change it"],
        ),
    ],
)
def test_a_refusal_names_field_value_limit_and_remedy(fields: dict, words: list[str]) -> None:
    with pytest.raises(RequestLossError) as caught:
        settle(request(**fields), "there", FEW)
    assert [word for word in words if word not in str(caught.value)] == []
