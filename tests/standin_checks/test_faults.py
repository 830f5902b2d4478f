"""The stand-in's faults as seen by plain httpx."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx
import pytest
import standin as standin_package
from standin import FAULTS, StandIn, sample_video
from standin_calls import (
    SERVICES,
    WORDS,
    finish,
    finished_url,
    poll,
    status_of,
    submit,
)


@pytest.mark.parametrize(
    ("service", "fault", "status"),
    [
        (service, fault, status)
        for service in SERVICES
        for fault, status in [("submit-429", 429), ("submit-500", 500), ("submit-html-502", 502), ("submit-401", 401)]
    ],
)
def test_a_refused_submission_makes_no_task(
    standin: StandIn, http: httpx.Client, service: str, fault: str, status: int
) -> None:
    standin.inject(fault)
    assert submit(http, standin, service).status_code == status
    assert standin.submissions == []


@pytest.mark.parametrize(("fault", "seconds"), [("submit-429", "3"), ("poll-429", "1")])
@pytest.mark.parametrize("service", SERVICES)
def test_a_rate_limit_says_when_to_come_back(
    standin: StandIn, http: httpx.Client, service: str, fault: str, seconds: str
) -> None:
    standin.inject(fault)
    answer = submit(http, standin, service)
    answer = answer if fault == "submit-429" else poll(http, standin, service)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, seconds)


@pytest.mark.parametrize("service", SERVICES)
def test_a_dropped_submission_makes_a_task_and_no_answer(standin: StandIn, http: httpx.Client, service: str) -> None:
    standin.inject("submit-drop")
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        submit(http, standin, service)
    assert len(standin.submissions) == 1


@pytest.mark.parametrize("service", SERVICES)
def test_a_malformed_submission_makes_a_task(standin: StandIn, http: httpx.Client, service: str) -> None:
    standin.inject("submit-malformed")
    answer = submit(http, standin, service)
    with pytest.raises(json.JSONDecodeError):
        answer.json()
    assert (answer.status_code, len(standin.submissions)) == (200, 1)


@pytest.mark.parametrize("service", SERVICES)
def test_a_dropped_poll_gives_no_answer(standin: StandIn, http: httpx.Client, service: str) -> None:
    submit(http, standin, service)
    standin.inject("poll-drop")
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        poll(http, standin, service)


@pytest.mark.parametrize(("fault", "status"), [("poll-500", 500), ("poll-404", 404)])
@pytest.mark.parametrize("service", SERVICES)
def test_a_refused_poll_has_its_status(
    standin: StandIn, http: httpx.Client, service: str, fault: str, status: int
) -> None:
    submit(http, standin, service)
    standin.inject(fault)
    assert poll(http, standin, service).status_code == status


@pytest.mark.parametrize(
    ("fault", "kind"), [("poll-malformed", "application/json"), ("poll-html", "text/html; charset=utf-8")]
)
@pytest.mark.parametrize("service", SERVICES)
def test_a_garbled_poll_is_a_200_without_json(
    standin: StandIn, http: httpx.Client, service: str, fault: str, kind: str
) -> None:
    submit(http, standin, service)
    standin.inject(fault)
    answer = poll(http, standin, service)
    with pytest.raises(json.JSONDecodeError):
        answer.json()
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, kind)


@pytest.mark.parametrize(("service", "word"), [("wavespeed", "archiving"), ("novita", "TASK_STATUS_ARCHIVING")])
def test_an_unknown_status_is_on_no_page(standin: StandIn, http: httpx.Client, service: str, word: str) -> None:
    submit(http, standin, service)
    standin.inject("poll-unknown-status")
    assert status_of(poll(http, standin, service)) == word


def test_a_slow_poll_is_late_and_right(standin: StandIn, http: httpx.Client) -> None:
    submit(http, standin, "wavespeed")
    standin.inject("poll-slow")
    before = time.monotonic()
    assert status_of(poll(http, standin, "wavespeed")) == "created"
    assert time.monotonic() - before >= 1.5


def test_a_spoilt_poll_does_not_bring_a_task_forward(standin: StandIn, http: httpx.Client) -> None:
    submit(http, standin, "wavespeed")
    standin.inject("poll-500", times=4)
    answers = [poll(http, standin, "wavespeed") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [500, 500, 500, 500, 200]
    assert status_of(answers[-1]) == "created"


@pytest.mark.parametrize(("service", "word"), [("wavespeed", "failed"), ("novita", "TASK_STATUS_FAILED")])
def test_a_failed_task_fails_at_its_end_and_stays_so(
    standin: StandIn, http: httpx.Client, service: str, word: str
) -> None:
    standin.inject("task-failed")
    submit(http, standin, service)
    seen = [status_of(poll(http, standin, service)) for _ in range(4)]
    assert seen == [*WORDS[service][:2], word, word]


def test_only_as_many_tasks_fail_as_were_asked_for(standin: StandIn, http: httpx.Client) -> None:
    standin.inject("task-failed")
    ends = [finish(http, standin, "wavespeed")["data"]["status"] for _ in range(2)]
    assert ends == ["failed", "completed"]


@pytest.mark.parametrize(("fault", "status"), [("file-403", 403), ("file-404", 404), ("file-500", 500)])
def test_a_refused_file_has_its_status(standin: StandIn, http: httpx.Client, fault: str, status: int) -> None:
    standin.inject(fault)
    assert http.get(finished_url(http, standin)).status_code == status


def test_a_truncated_file_ends_before_its_announced_length(standin: StandIn, http: httpx.Client) -> None:
    standin.inject("file-truncated")
    url = finished_url(http, standin)
    with http.stream("GET", url) as answer:
        assert int(answer.headers["Content-Length"]) == len(sample_video())
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            answer.read()


def test_a_cut_file_is_whole_for_http(standin: StandIn, http: httpx.Client) -> None:
    standin.inject("file-cut")
    answer = http.get(finished_url(http, standin))
    half = sample_video()[: len(sample_video()) // 2]
    assert (answer.status_code, answer.content) == (200, half)


def test_an_html_file_is_a_200(standin: StandIn, http: httpx.Client) -> None:
    standin.inject("file-html")
    answer = http.get(finished_url(http, standin))
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")


def test_faults_of_one_kind_come_in_the_order_of_their_injection(standin: StandIn, http: httpx.Client) -> None:
    standin.inject("submit-500")
    standin.inject("submit-429")
    assert [submit(http, standin, "novita").status_code for _ in range(3)] == [500, 429, 200]


def test_a_refused_request_uses_up_no_fault(standin: StandIn, http: httpx.Client) -> None:
    standin.inject("submit-500")
    assert [submit(http, standin, "novita", steps=steps).status_code for steps in (1, 2)] == [400, 500]


def test_an_unknown_fault_is_an_error(strict: StandIn) -> None:
    with pytest.raises(ValueError, match="unknown fault 'submit-418'; known are file-403, "):
        strict.inject("submit-418")


@pytest.mark.parametrize("times", [0, -1])
def test_a_fault_is_injected_at_least_once(strict: StandIn, times: int) -> None:
    with pytest.raises(ValueError, match="must be 1 or more"):
        strict.inject("submit-500", times=times)


def test_every_fault_is_tried_here() -> None:
    tried = Path(__file__).read_text()
    assert {fault for fault in FAULTS if f'"{fault}"' not in tried} == set()


def test_the_standin_shares_nothing_with_the_package() -> None:
    folder = Path(standin_package.__file__).parent
    assert [path.name for path in folder.glob("*.py") if "hunyuan_local" in path.read_text()] == []
