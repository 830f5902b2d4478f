"""The form: visitors' input parsed as a request or refused with a message, and requests shown as form values."""

from __future__ import annotations

import pytest
from image_files import PICTURE

from hunyuan_local.errors import ConfigError, InvalidRequestError, StoreError
from hunyuan_local.images import InputImage, check_image
from hunyuan_local.schema import MAX_SEED, GenerationRequest
from hunyuan_local.ui import form
from hunyuan_local.ui.form import LABELS, NAMES, SIZES, sentences, write_fields

IMAGE = check_image(PICTURE)
FULL = GenerationRequest(
    prompt="a fox", negative_prompt="rain", width=64, height=48, num_frames=5, num_inference_steps=3, seed=MAX_SEED,
    guidance_scale=6.5, true_cfg_scale=2.0, flow_shift=7.0, fps=12, rewrite="normal", image=IMAGE, image_fit="pad",
)  # fmt: skip


def find(digest: str) -> InputImage:
    if digest != IMAGE.sha256:
        raise ValueError("is not kept on the server any more; choose it again")
    return IMAGE


def read_request(fields: dict[str, str]) -> GenerationRequest:
    return form.read_request(fields, find)


def refused(**fields: str) -> list[str]:
    with pytest.raises(InvalidRequestError) as caught:
        read_request({"prompt": "a fox"} | fields)
    return sentences(caught.value)


def test_the_form_has_every_field_of_a_request() -> None:
    others = {"model", "profile", "size"}
    told_by_size = {"width", "height"}
    assert set(NAMES) - others == set(GenerationRequest.model_fields) - told_by_size - {"original_prompt"}


def test_a_request_as_texts_gives_the_same_request() -> None:
    assert read_request(write_fields(FULL, "tiny", "")) == FULL


def test_empty_fields_are_left_to_the_model() -> None:
    empty = dict.fromkeys(NAMES, " ") | {"prompt": "a fox"}
    assert read_request(empty) == GenerationRequest(prompt="a fox")


def test_a_rewritten_request_gives_back_what_was_written() -> None:
    made = GenerationRequest(prompt="a red fox, at dawn", original_prompt="a fox", rewrite="master")
    assert write_fields(made, "tiny", "")["prompt"] == "a fox"


@pytest.mark.parametrize("size", SIZES)
def test_every_offered_size_is_allowed(size: str) -> None:
    request = read_request({"prompt": "a fox", "size": size})
    assert f"{request.width}x{request.height}" == size


@pytest.mark.parametrize("size", ["64x48", "64*48", " 64 X 48 ", "64 × 48"])  # noqa: RUF001
def test_a_size_may_be_written_in_several_ways(size: str) -> None:
    request = read_request({"prompt": "a fox", "size": size})
    assert (request.width, request.height) == (64, 48)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("size", "1281x720", "Width 1281 must be a multiple of 16; the nearest are 1280 and 1296."),
        ("size", "wide", "Size wide must be width x height in pixels, such as 1280x720."),
        ("num_frames", "86", "Frames 86 must be 4k+1 frames; the nearest are 85 and 89."),
        ("num_inference_steps", "0", "Steps 0 must be from 1 to 100; the nearest is 1."),
        ("num_inference_steps", "ten", "Steps ten must be an integer; leave empty for the default."),
        ("num_inference_steps", "8.5", "Steps 8.5 must be an integer; leave empty for the default."),
        ("num_inference_steps", "1_0", "Steps 1_0 must be an integer; leave empty for the default."),
        ("guidance_scale", "6,5", "Guidance 6,5 must be a number, such as 6.5; leave empty for the default."),
        ("guidance_scale", "nan", "Guidance nan must be a number, such as 6.5; leave empty for the default."),
        ("guidance_scale", "1e999", "Guidance inf must be a finite number from 0.0 to 100.0."),
        ("image", "0" * 64, "Image is not kept on the server any more; choose it again."),
        ("image_fit", "pad", "Image fit pad has no effect without image; give an image, or leave it out."),
        ("prompt", "  ", "Prompt: the prompt is empty; describe what the video shows."),
    ],
)
def test_a_wrong_value_is_refused_in_a_sentence_with_its_field(name: str, text: str, sentence: str) -> None:
    assert refused(**{name: text}) == [sentence]


def test_all_wrong_fields_are_named_at_once() -> None:
    assert len(refused(size="1281x720", seed="x", num_frames="2", fps="0")) == 4


def test_a_large_seed_is_not_rounded() -> None:
    assert read_request({"prompt": "a fox", "seed": str(MAX_SEED)}).seed == MAX_SEED


def test_other_errors_are_sentences_too() -> None:
    assert sentences(ConfigError("model='x': not made here")) == ["Model x: not made here."]


def test_what_the_store_says_stays_with_those_who_run_the_server() -> None:
    assert "/home" not in sentences(StoreError("/home/someone/jobs.sqlite3 is damaged"))[0]


def test_every_field_has_a_label_of_its_own() -> None:
    assert len(set(LABELS.values())) == len(LABELS)
