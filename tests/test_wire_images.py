"""Images in WaveSpeed's dialect: submissions, uploads, answers, and what the service's adapter sends."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from hunyuan_local.capabilities import fit
from hunyuan_local.errors import InvalidAnswerError, InvalidRequestError, RequestLossError
from hunyuan_local.images import InputImage, check_image
from hunyuan_local.schema import GenerationRequest, JobView
from hunyuan_local.wires import novita, schemas, wavespeed, wavespeed_account, wavespeed_image
from hunyuan_local.wires.base import Submission
from hunyuan_local.wires.sent_image import SentImage

BODY = {"prompt": "a cat", "image": "https://cat.example/cat.png"}


def image_of(width: int = 64, height: int = 48) -> InputImage:
    content = io.BytesIO()
    Image.new("RGB", (width, height)).save(content, "PNG")
    return check_image(content.getvalue())


def received(**fields: object) -> Submission:
    return wavespeed_image.request_from_wire(BODY | fields)


def refusal(**fields: object) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        received(**fields)
    return str(caught.value)


# Submissions to the server


def test_a_submission_has_the_documented_defaults() -> None:
    request = received().with_image(image_of()).request
    assert (request.num_frames, request.num_inference_steps, request.seed) == (121, 30, None)


@pytest.mark.parametrize(("seconds", "frames"), [(5, 121), (10, 241), (5.0, 121)])
def test_a_duration_is_a_number_of_frames(seconds: float, frames: int) -> None:
    assert received(duration=seconds).request.num_frames == frames


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"duration": 7}, "duration=7: must be 5 or 10 seconds (121 or 241 frames)"),
        ({"duration": "5"}, "duration='5': "),
        ({"size": "640*480"}, "size='640*480': wavespeed supports 1280*720 and 720*1280"),
        ({"num_inference_steps": 31}, "num_inference_steps=31: "),
        ({"seed": 2**31}, "seed=2147483648: "),
        ({"image": ""}, "image='': "),
        ({"image": 3}, "image=3: "),
        ({"image_fit": "crop"}, "image_fit='crop': "),
        ({"frames": 17}, "frames=17: unknown field"),
    ],
)
def test_a_wrong_field_is_named_before_the_image_is_read(fields: dict[str, object], message: str) -> None:
    assert message in refusal(**fields)


def test_the_image_is_required() -> None:
    with pytest.raises(InvalidRequestError, match="image=None: is required"):
        wavespeed_image.request_from_wire({"prompt": "a cat"})


@pytest.mark.parametrize(("shape", "size"), [((64, 48), (1280, 720)), ((48, 64), (720, 1280))])
def test_a_missing_size_is_that_of_the_images_shape(shape: tuple[int, int], size: tuple[int, int]) -> None:
    request = received().with_image(image_of(*shape)).request
    assert (request.width, request.height) == size


def test_a_given_size_stays() -> None:
    request = received(size="1280*720").with_image(image_of(48, 64)).request
    assert (request.width, request.height) == (1280, 720)


def test_relaxed_takes_other_lengths_and_leaves_the_size_to_the_model() -> None:
    submission = wavespeed_image.request_from_wire(BODY | {"duration": 0.7}, relaxed=True)
    request = submission.with_image(image_of()).request
    assert (request.num_frames, request.width) == (17, None)


def test_the_fit_is_kept() -> None:
    assert received(image_fit="pad").with_image(image_of()).request.image_fit == "pad"


def test_a_submission_keeps_how_it_is_answered() -> None:
    submission = wavespeed_image.request_from_wire(BODY | {"enable_sync_mode": True}, {"webhook": "https://h.example"})
    assert (submission.wait, submission.webhook) == (True, "https://h.example")


def test_errors_show_the_start_of_an_image_and_no_password() -> None:
    long, secret = SentImage("image", "A" * 10**6), SentImage("image", "https://me:pw@cat.example/c.png")
    assert str(long.problem("is wrong")).startswith("image='AAAA") and len(str(long.problem("is wrong"))) < 100
    assert str(secret.problem("is wrong")) == "image='https://***@cat.example/c.png': is wrong"


# Answers


def view(request: GenerationRequest) -> JobView:
    return JobView(job_id="j", status="queued", request=request)


def test_a_prediction_names_the_model_of_its_request() -> None:
    with_image = GenerationRequest(prompt="a", image=image_of())
    assert wavespeed.prediction_to_wire(view(with_image), "").model == "wavespeed-ai/hunyuan-video/i2v"
    assert wavespeed.prediction_to_wire(view(GenerationRequest(prompt="a")), "").model.endswith("/t2v")


def test_a_webhook_says_what_was_submitted() -> None:
    image = image_of()
    sent = wavespeed.webhook_to_wire(view(GenerationRequest(prompt="a", image=image, num_frames=241)), "").input
    assert (sent["duration"], image.sha256 in sent["image"]) == (10, True)


def test_a_list_can_be_of_one_model() -> None:
    asked = [wavespeed_account.list_from_wire({"model": name}) for name in (wavespeed.MODEL, wavespeed.IMAGE_MODEL)]
    assert [(each.has_image, each.impossible) for each in asked] == [(False, False), (True, False)]
    assert wavespeed_account.list_from_wire({}).has_image is None


# Uploads


def test_a_ticket_is_read_as_it_was_made() -> None:
    reply = wavespeed_image.upload_to_wire("https://h.example/files/uploads/1?signature=s").to_json()
    url = "https://h.example/files/uploads/1?signature=s"
    assert wavespeed_image.ticket_from_wire(reply) == (url, {}, url)


@pytest.mark.parametrize("field", ["method", "url"])
def test_a_ticket_without_its_call_is_refused(field: str) -> None:
    reply = wavespeed_image.upload_to_wire("https://h.example/1").to_json()
    del reply["data"]["upload"][field]
    with pytest.raises(InvalidAnswerError, match=field):
        wavespeed_image.ticket_from_wire(reply)


def test_an_upload_that_is_too_large_is_refused_before_it_is_sent() -> None:
    with pytest.raises(InvalidRequestError, match="size=40000000: "):
        wavespeed_image.upload_from_wire({"filename": "a.png", "size": 40_000_000})


# What the adapters send


def test_a_request_with_an_image_is_sent_to_the_other_model() -> None:
    request = GenerationRequest(prompt="a", image=image_of(48, 64), num_frames=241)
    wired = wavespeed.request_to_wire(request)
    assert wavespeed.submit_path(request) == "/api/v3/wavespeed-ai/hunyuan-video/i2v"
    assert (wired.body["duration"], wired.body["size"], wired.losses) == (10, "720*1280", ())


def test_the_length_is_five_seconds_by_default() -> None:
    assert wavespeed.request_to_wire(GenerationRequest(prompt="a", image=image_of())).body["duration"] == 5


@pytest.mark.parametrize(("frames", "nearest"), [(17, 121), (129, 121), (185, 241), (401, 241)])
def test_another_length_is_a_loss(frames: int, nearest: int) -> None:
    request = GenerationRequest(prompt="a", image=image_of(), num_frames=frames)
    (loss,) = fit(request, "wavespeed", wavespeed.CAPABILITIES).losses
    assert (loss.field, loss.becomes, loss.permissible) == ("num_frames", nearest, True)
    assert loss.rule == "wavespeed supports 121 and 241 frames"


def test_a_fit_is_a_loss() -> None:
    request = GenerationRequest(prompt="a", image=image_of(), image_fit="pad")
    with pytest.raises(RequestLossError, match="image_fit='pad': wavespeed does not support this setting"):
        wavespeed.request_to_wire(request)


def test_without_an_image_the_length_is_a_loss_as_before() -> None:
    with pytest.raises(RequestLossError, match="num_frames=121"):
        wavespeed.request_to_wire(GenerationRequest(prompt="a", num_frames=121))


def test_novita_makes_no_videos_from_an_image() -> None:
    request = GenerationRequest(prompt="a", image=image_of(), image_fit="pad")
    with pytest.raises(RequestLossError) as caught:
        novita.request_to_wire(request, allow_loss=True)
    (loss,) = caught.value.losses
    assert (loss.field, loss.permissible) == ("image", False)
    assert loss.rule == "novita makes videos from text alone"


# Documentation


def test_the_schema_has_every_field_and_the_two_lengths() -> None:
    fields = schemas.image_schema(False, 100)["properties"]
    assert fields.keys() == wavespeed_image.ImageSubmissionBody.model_fields.keys()
    assert (
        fields["duration"]["enum"] == [5, 10] and "enum" not in schemas.image_schema(True, 9)["properties"]["duration"]
    )
