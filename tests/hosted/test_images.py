"""Requests with an image at the services: uploaded and submitted to another model, or refused."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hosted_settings import QUICK
from PIL import Image
from standin import StandIn

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.hosted.novita import NovitaBackend
from hunyuan_local.backends.hosted.open_tasks import OpenTasks, fingerprint
from hunyuan_local.backends.hosted.wavespeed import WaveSpeedBackend
from hunyuan_local.backends.registry import get_backend
from hunyuan_local.errors import (
    HostedError,
    InvalidAnswerError,
    RateLimitError,
    RequestLossError,
    RequestRefusedError,
    UnreachableError,
)
from hunyuan_local.provenance import read_provenance
from hunyuan_local.schema import GenerationRequest

I2V = "wavespeed-ai/hunyuan-video/i2v"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.new("RGB", (48, 64), "navy").save(tmp_path / "cat.png")
    return tmp_path / "cat.png"


@pytest.fixture
def request_(image: Path) -> GenerationRequest:
    return GenerationRequest(prompt="a cat", image=image, num_frames=241, seed=3)


@pytest.fixture
def wavespeed(standin: StandIn, open_tasks: OpenTasks) -> WaveSpeedBackend:
    return WaveSpeedBackend(standin.key, standin.url, pacing=QUICK, open_tasks=open_tasks)


@pytest.mark.usefixtures("starts_process")
def test_an_image_is_uploaded_and_submitted_once(
    wavespeed: WaveSpeedBackend, standin: StandIn, context: GenerationContext, request_: GenerationRequest, image: Path
) -> None:
    result = wavespeed.generate(request_, context)
    ((address, content),) = standin.uploads.items()
    (submission,) = standin.submissions
    assert content == image.read_bytes()
    assert submission.body | {"image": address} == submission.body
    assert (submission.body["duration"], submission.body["size"]) == (10, "720*1280")
    assert [path for method, path, _ in standin.requests if method == "POST"] == [
        "/api/v3/media/uploads", f"/api/v3/{I2V}",
    ]  # fmt: skip
    provenance = read_provenance(result.path)
    assert (provenance.model.name, provenance.request.image) == (I2V, request_.image)


def test_a_refused_upload_submits_nothing_and_is_not_remembered(
    wavespeed: WaveSpeedBackend,
    standin: StandIn,
    open_tasks: OpenTasks,
    context: GenerationContext,
    request_: GenerationRequest,
) -> None:
    standin.upload_status = 403
    with pytest.raises(RequestRefusedError, match=r"^the image was not uploaded: .* HTTP 403: .*nothing was submitted"):
        wavespeed.generate(request_, context)
    assert (standin.submissions, open_tasks.jobs()) == ([], [])


@pytest.mark.parametrize(("status", "kind"), [(429, RateLimitError), (500, UnreachableError), (503, UnreachableError)])
def test_a_storage_that_is_busy_is_not_a_refusal(
    status: int,
    kind: type[HostedError],
    wavespeed: WaveSpeedBackend,
    standin: StandIn,
    context: GenerationContext,
    request_: GenerationRequest,
) -> None:
    standin.upload_status = status
    with pytest.raises(kind, match=rf"HTTP {status}: not now; .*try again later; nothing was submitted") as caught:
        wavespeed.generate(request_, context)
    assert (getattr(caught.value, "retry_after_s", 7), standin.submissions) == (7, [])


@pytest.mark.usefixtures("starts_process")
def test_an_interrupted_task_is_resumed_by_the_same_request(
    wavespeed: WaveSpeedBackend, standin: StandIn, context: GenerationContext, request_: GenerationRequest
) -> None:
    standin.inject("poll-malformed")
    with pytest.raises(InvalidAnswerError):
        wavespeed.generate(request_, context)
    assert wavespeed.generate(request_, context).path.exists()
    assert (len(standin.submissions), len(standin.uploads)) == (1, 1)


def test_another_image_is_another_task(image: Path, request_: GenerationRequest) -> None:
    other = io.BytesIO()
    Image.new("RGB", (48, 64), "red").save(other, "PNG")
    marks = {
        fingerprint("w", "u", request, None)
        for request in (request_, request_.replace(image=other.getvalue()), request_.replace(image=image))
    }
    assert len(marks) == 2


def test_the_fingerprint_of_a_request_without_an_image_is_that_of_earlier_versions() -> None:
    request = GenerationRequest(prompt="a fox", seed=1, guidance_scale=6.5)
    assert fingerprint("wavespeed", "u", request, None) == EARLIER


EARLIER = "b939b7f73d0d996a90c69efbb985c4ba3c58db5e4b57e18b6a2caf765199cbcd"


def test_explain_shows_the_image_in_a_few_words(wavespeed: WaveSpeedBackend, request_: GenerationRequest) -> None:
    found = wavespeed.explain(request_)
    assert (found.verdict, found.url.endswith(I2V), found.price_usd) == ("accepted", True, 0.40)
    assert found.body["image"].startswith("<PNG 48x64, sha256:") and len(found.body["image"]) < 100


@pytest.mark.parametrize("name", ["local", "wavespeed", "novita"])
def test_explain_can_be_printed_as_json(name: str, request_: GenerationRequest) -> None:
    options = {"model": "tiny", "profile": "cpu"} if name == "local" else {}
    found = get_backend(name, **options).explain(request_).model_dump()
    assert json.loads(json.dumps(found)) == found
    assert all(loss["value"].startswith("<PNG 48x64 ") for loss in found["losses"] if loss["field"] == "image")


def test_novita_refuses_an_image_before_anything_is_sent(
    standin: StandIn, open_tasks: OpenTasks, context: GenerationContext, request_: GenerationRequest
) -> None:
    backend = NovitaBackend(standin.key, standin.url, pacing=QUICK, open_tasks=open_tasks)
    assert backend.explain(request_).verdict == "refused"
    with pytest.raises(RequestLossError, match="novita makes videos from text alone"):
        backend.generate(request_, context)
    assert standin.requests == []
