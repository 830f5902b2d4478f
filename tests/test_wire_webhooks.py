"""Webhook calls in the dialects that have them: bodies, headers, timeouts."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from wire_strategies import jobs, unhurried

from hunyuan_local.schema import GenerationRequest, JobView
from hunyuan_local.wires import novita, wavespeed

BASE = "https://host.example"


@given(jobs())
@unhurried
def test_wavespeeds_call_is_the_prediction_and_the_input(job: JobView) -> None:
    body = json.loads(json.dumps(wavespeed.webhook_to_wire(job, BASE).to_json()))
    asked = body.pop("input")
    assert body == wavespeed.prediction_to_wire(job, BASE).to_json()
    assert asked.get("prompt") == (job.request.prompt if job.request else None)


@pytest.mark.parametrize(
    ("request_", "asked"),
    [
        (
            GenerationRequest(prompt="a fox", width=144, height=80, num_inference_steps=4, seed=2**40),
            {"prompt": "a fox", "size": "144*80", "seed": 2**40, "num_inference_steps": 4},
        ),
        (
            GenerationRequest(prompt="a fox"),
            {"prompt": "a fox", "size": "1280*720", "seed": -1, "num_inference_steps": 30},
        ),
    ],
    ids=["beyond the page's ranges", "left open"],
)
def test_the_input_is_the_request_in_wavespeeds_words(request_: GenerationRequest, asked: dict) -> None:
    job = JobView(job_id="p1", status="succeeded", request=request_)
    assert wavespeed.webhook_to_wire(job, BASE).input == asked


def test_wavespeeds_signature() -> None:
    # Computed with `printf '%s' 'e1.1700000000.{"a": 1}' | openssl dgst -sha256 -hmac 0123456789abcdef`.
    assert wavespeed.webhook_headers("e1", 1700000000, b'{"a": 1}', "whsec_0123456789abcdef") == {
        "webhook-id": "e1",
        "webhook-timestamp": "1700000000",
        "webhook-signature": "v3,6ac70428c808886b0ed4944a34a6c34d398d19f67a109a45d694cfa8946464be",
    }


def test_wavespeeds_key_is_not_decoded() -> None:
    plain = wavespeed.webhook_headers("e1", 1, b"{}", "whsec_c2VjcmV0")
    assert plain != wavespeed.webhook_headers("e1", 1, b"{}", "whsec_secret")


def test_wavespeed_retries_three_times() -> None:
    assert wavespeed.WEBHOOK_RETRIES == 3


def test_novita_sends_no_headers_of_its_own() -> None:
    assert novita.webhook_headers("e1", 1, b"{}", "whsec_1") == {}


def test_novita_retries_five_times_and_waits_five_seconds() -> None:
    assert (novita.WEBHOOK_RETRIES, novita.WEBHOOK_TIMEOUT_S) == (5, 5.0)
