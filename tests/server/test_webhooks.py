"""Webhooks with real local receivers: content, number of calls, and failed calls."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from webhook_receiver import LIMIT_S, Receiver, until

from hunyuan_local.jobs.job import Job
from hunyuan_local.jobs.store import JobStore
from hunyuan_local.jobs.webhook_queue import WebhookQueue
from hunyuan_local.schema import GenerationRequest, JobView
from hunyuan_local.server.webhooks import WebhookCall, WebhookSender, check_webhook, make_call
from hunyuan_local.wires import novita, wavespeed

REQUEST = GenerationRequest(prompt="a fox", width=1280, height=720, num_inference_steps=30, num_frames=85, seed=7)
SECRET = "whsec_0123456789abcdef"
BASE = "https://videos.example"
TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading all certificates is slow


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "jobs.sqlite")


def view(job: Job, base_url: str) -> JobView:
    """What the server would report about a job; other fields do not matter here."""
    outputs = (f"{base_url}/files/{job.job_id}.mp4",) if job.status == "succeeded" else ()
    return JobView(
        job_id=job.job_id, status=job.status, request=job.request, outputs=outputs, error=job.error, failure=job.failure
    )


make = partial(make_call, view=view, secret=SECRET)


def hurried(job: Job) -> WebhookCall | None:
    """A call that waits a fifth of a second for its receiver."""
    return replace(make(job), timeout_s=0.2)


def finish(store: JobStore, url: str, dialect: str = "wavespeed") -> str:
    """The id of a job that has just succeeded."""
    store.enqueue(REQUEST, "tiny", {"dialect": dialect, "base_url": BASE}, webhook=url)
    job = store.claim("w", "tiny", 60)
    store.succeed(job, {})
    return job.job_id


@contextmanager
def sending(
    store: JobStore, make: Callable[[Job], WebhookCall | None] = make, allow_private: bool = True, **options: object
) -> Iterator[WebhookSender]:
    quick = {"delays_s": (0.01,), "poll_s": 0.01, "tls": TRUSTS_NOBODY}
    sender = WebhookSender(WebhookQueue(store.database), make, allow_private, **(quick | options))
    sender.start()
    try:
        yield sender
    finally:
        sender.stop(LIMIT_S)


def settled(store: JobStore, job_id: str) -> Job:
    """The job once its call is delivered or abandoned."""
    until(lambda: store.get(job_id).webhook_state != "waiting")
    return store.get(job_id)


def outcome(store: JobStore, receiver_url: str, dialect: str = "wavespeed", **options: object) -> Job:
    """The outcome of a job's call to a URL."""
    job_id = finish(store, receiver_url, dialect)
    with sending(store, **options):
        return settled(store, job_id)


# What is sent


def test_wavespeeds_form_is_the_bare_prediction_and_the_input(store: JobStore) -> None:
    with Receiver() as receiver:
        job = outcome(store, receiver.url)
    prediction = wavespeed.prediction_to_wire(view(job, BASE), BASE).to_json()
    asked = {"prompt": "a fox", "size": "1280*720", "seed": 7, "num_inference_steps": 30}
    assert json.loads(receiver.calls[0].body) == prediction | {"input": asked}


def test_wavespeeds_signature_is_that_of_its_page(store: JobStore) -> None:
    with Receiver() as receiver:
        outcome(store, receiver.url)
    (call,) = receiver.calls
    signed = b".".join([call.headers["webhook-id"].encode(), call.headers["webhook-timestamp"].encode(), call.body])
    expected = hmac.new(b"0123456789abcdef", signed, hashlib.sha256).hexdigest()
    assert call.headers["webhook-signature"] == f"v3,{expected}"


def test_the_time_stamp_is_that_of_the_call(store: JobStore) -> None:
    before = int(time.time())
    with Receiver() as receiver:
        outcome(store, receiver.url)
    assert before <= int(receiver.calls[0].headers["webhook-timestamp"]) <= time.time()


def test_novitas_form_is_the_event_and_the_task_result(store: JobStore) -> None:
    with Receiver() as receiver:
        job = outcome(store, receiver.url, "novita")
    result = novita.job_to_wire(view(job, BASE), BASE).to_json()
    assert json.loads(receiver.calls[0].body) == {"event_type": "ASYNC_TASK_RESULT", "payload": result}


def test_novitas_calls_are_not_signed(store: JobStore) -> None:
    with Receiver() as receiver:
        outcome(store, receiver.url, "novita")
    assert not [name for name in receiver.calls[0].headers if name.startswith("webhook-")]


def test_a_call_is_a_post_of_json_to_the_whole_address(store: JobStore) -> None:
    with Receiver() as receiver:
        outcome(store, f"{receiver.url}/a%20b?token=1&x=%2F#part")
    (call,) = receiver.calls
    assert (call.method, call.path, call.headers["content-type"]) == (
        "POST",
        "/hook/a%20b?token=1&x=%2F",
        "application/json",
    )


def test_a_failed_job_is_reported_as_failed(store: JobStore) -> None:
    with Receiver() as receiver, sending(store):
        store.enqueue(REQUEST, "tiny", {"dialect": "wavespeed", "base_url": BASE}, webhook=receiver.url)
        store.fail(store.claim("w", "tiny", 60), "no memory")
        receiver.wait_for(1)
    assert json.loads(receiver.calls[0].body)["error"] == "no memory"


def test_a_job_that_has_not_ended_is_not_reported(store: JobStore) -> None:
    with Receiver() as receiver, sending(store):
        store.enqueue(REQUEST, "tiny", {"dialect": "wavespeed", "base_url": BASE}, webhook=receiver.url)
        settled(store, finish(store, receiver.url))
        assert len(receiver.calls) == 1


def test_a_dialect_without_calls_is_given_up(store: JobStore) -> None:
    with Receiver() as receiver:
        job = outcome(store, receiver.url, "openai")
    assert (job.webhook_state, receiver.calls) == ("given up", [])


# What counts as delivered, and how often a call is repeated


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_success(store: JobStore, status: int) -> None:
    with Receiver(status) as receiver:
        assert outcome(store, receiver.url).webhook_state == "delivered"


@pytest.mark.parametrize("status", [301, 308, 400, 401, 404, 429, 500, 503])
def test_anything_else_is_tried_again(store: JobStore, status: int) -> None:
    with Receiver(status, 200) as receiver:
        job = outcome(store, receiver.url)
    assert (job.webhook_state, job.webhook_error, len(receiver.calls)) == ("delivered", "", 2)


@pytest.mark.parametrize(("dialect", "calls"), [("wavespeed", 4), ("novita", 6)])
def test_a_dialects_retries_follow_the_first_try(store: JobStore, dialect: str, calls: int) -> None:
    with Receiver(500) as receiver:
        job = outcome(store, receiver.url, dialect)
    assert (job.webhook_state, job.webhook_error) == ("given up", "127.0.0.1 answered HTTP 500")
    assert len(receiver.calls) == job.webhook_attempts == calls


def test_a_receiver_that_is_gone_for_good_is_called_once(store: JobStore) -> None:
    with Receiver(410) as receiver:
        job = outcome(store, receiver.url)
    assert (job.webhook_state, len(receiver.calls)) == ("given up", 1)


def test_repeated_calls_have_one_id(store: JobStore) -> None:
    with Receiver(500, 500, 200) as receiver:
        outcome(store, receiver.url)
    assert len({call.headers["webhook-id"] for call in receiver.calls}) == 1


def test_calls_of_different_jobs_have_different_ids(store: JobStore) -> None:
    with Receiver() as receiver:
        for _ in range(3):
            outcome(store, receiver.url)
    assert len({call.headers["webhook-id"] for call in receiver.calls}) == 3


def test_a_job_that_is_run_again_is_another_event(store: JobStore) -> None:
    with Receiver() as receiver, sending(store):
        store.enqueue(REQUEST, "tiny", {"dialect": "wavespeed", "base_url": BASE}, webhook=receiver.url)
        job = store.claim("w", "tiny", 60)
        store.fail(job, "no memory")
        settled(store, job.job_id)
        store.retry(job.job_id)
        time.sleep(0.002)  # ids differ by milliseconds
        store.succeed(store.claim("w", "tiny", 60), {})
        settled(store, job.job_id)
    assert len({call.headers["webhook-id"] for call in receiver.calls}) == 2


def test_a_delay_is_waited_for(store: JobStore) -> None:
    with Receiver(500, 200) as receiver, sending(store, delays_s=(3600.0,)):
        job_id = finish(store, receiver.url)
        until(lambda: store.get(job_id).webhook_error != "")
        again_in_s = store.get(job_id).webhook_at - time.time()
    assert 3500 < again_in_s <= 1.2 * 3600


# Receivers that misbehave


def test_a_refused_connection_is_named(store: JobStore) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    job = outcome(store, f"http://127.0.0.1:{port}/hook")
    assert job.webhook_state == "given up" and "127.0.0.1 cannot be called" in job.webhook_error


def test_a_name_that_nobody_knows_is_named(store: JobStore) -> None:
    def knows_no_name(*_: object, **__: object) -> list:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    job = outcome(store, "http://me.example/hook", lookup=knows_no_name)
    assert "me.example cannot be called" in job.webhook_error and "not known" in job.webhook_error


def test_a_receiver_that_hangs_is_left(store: JobStore) -> None:
    release = threading.Event()
    with Receiver(lambda _: release.wait(LIMIT_S)) as receiver:
        job = outcome(store, receiver.url, make=hurried)
        release.set()
    assert job.webhook_error == "127.0.0.1 did not answer in time (0.2 s)"


def test_a_receiver_that_answers_byte_by_byte_is_left(store: JobStore) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while True:
            handler.wfile.write(b"a")
            time.sleep(0.05)

    with Receiver(drip) as receiver:
        job = outcome(store, receiver.url, make=hurried)
    assert job.webhook_error == "127.0.0.1 did not answer in time (0.2 s)"


def test_an_answer_without_end_is_not_read_to_its_end(store: JobStore) -> None:
    sent: list[int] = []

    def flood(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                sent.append(handler.wfile.write(b"a" * 65536))
        finally:
            sent.append(0)

    with Receiver(flood) as receiver:
        job = outcome(store, receiver.url)
        until(lambda: sent[-1:] == [0])
    assert job.webhook_state == "delivered" and sum(sent) < 64 * 1024**2  # what the system's own buffers may hold


def test_an_answer_whose_body_breaks_off_counts_by_its_status(store: JobStore) -> None:
    def break_off(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()

    with Receiver(break_off) as receiver:
        assert outcome(store, receiver.url).webhook_state == "delivered"


def test_an_answer_that_is_no_http_is_a_failure(store: JobStore) -> None:
    with Receiver(lambda handler: handler.wfile.write(b"SSH-2.0-x\r\n"), 200) as receiver:
        job = outcome(store, receiver.url)
    assert (job.webhook_state, len(receiver.calls)) == ("delivered", 2)


def test_a_receiver_that_hangs_does_not_delay_the_others(store: JobStore) -> None:
    release = threading.Event()
    with Receiver(lambda _: release.wait(LIMIT_S)) as hanging, Receiver() as good, sending(store):
        for _ in range(3):
            finish(store, hanging.url)
        hanging.wait_for(3)
        # Those three are kept waiting until this one has arrived.
        assert settled(store, finish(store, good.url)).webhook_state == "delivered"
        release.set()


def test_a_redirect_is_not_followed_and_said(store: JobStore) -> None:
    with Receiver() as elsewhere:

        def redirect(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(307)
            handler.send_header("Location", elsewhere.url)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        with Receiver(redirect) as receiver:
            job = outcome(store, receiver.url)
    assert (job.webhook_state, elsewhere.calls) == ("given up", [])
    assert "HTTP 307; redirects are not followed" in job.webhook_error


# Private addresses, when a call is made


def test_a_private_address_is_not_called(store: JobStore) -> None:
    with Receiver() as receiver:
        job = outcome(store, receiver.url, allow_private=False)
    assert (job.webhook_state, receiver.calls) == ("given up", [])
    assert "--allow-private-webhooks" in job.webhook_error


def answering(*addresses: str) -> Callable[..., list]:
    """A name server that returns one address after another, and then repeats the last one."""
    left = list(addresses)

    def look_up(host: str, port: int, **_: object) -> list:
        address = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    return look_up


def test_a_name_that_changes_after_the_check_is_not_called(store: JobStore) -> None:
    with Receiver() as receiver:
        url, lookup = f"http://me.example:{receiver.port}/hook", answering("8.8.8.8", "127.0.0.1")
        check_webhook(url, False, lookup=lookup)
        job = outcome(store, url, allow_private=False, lookup=lookup)
    assert (job.webhook_state, receiver.calls) == ("given up", [])


def test_a_call_goes_to_the_address_that_was_looked_up_once(store: JobStore) -> None:
    with Receiver() as receiver:
        # A second lookup would return an address where nothing listens.
        lookup = answering("127.0.0.1", "127.0.0.9")
        job = outcome(store, f"http://me.example:{receiver.port}/hook", lookup=lookup)
    assert (job.webhook_attempts, receiver.calls[0].headers["host"]) == (1, f"me.example:{receiver.port}")


def test_an_ipv6_address_is_named_to_the_receiver_in_brackets(store: JobStore) -> None:
    with Receiver() as receiver:
        outcome(store, f"http://[2001:db8::1]:{receiver.port}/hook", lookup=answering("127.0.0.1"))
    assert receiver.calls[0].headers["host"] == f"[2001:db8::1]:{receiver.port}"


def test_the_next_address_of_a_name_is_tried(store: JobStore) -> None:
    def two(host: str, port: int, **_: object) -> list:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("127.0.0.9", "127.0.0.1")]

    with Receiver() as receiver:
        job = outcome(store, f"http://me.example:{receiver.port}/hook", lookup=two)
    assert (job.webhook_state, job.webhook_attempts) == ("delivered", 1)


def test_proxies_of_the_environment_are_not_used(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver() as proxy, Receiver() as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        outcome(store, receiver.url)
    assert (len(receiver.calls), proxy.calls) == (1, [])


# TLS


@pytest.fixture
def certified(starts_process: None, tmp_path: Path) -> Callable[[], tuple[ssl.SSLContext, ssl.SSLContext]]:
    """A receiver's certificate for me.example, and the context that trusts it."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command makes the certificate, and is not there")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=me.example -addext subjectAltName=DNS:me.example"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return server, ssl.create_default_context(cafile=certificate)


def test_the_certificate_is_checked_for_the_name_and_the_call_goes_to_the_address(store: JobStore, certified) -> None:
    server, trusting = certified
    with Receiver(tls=server) as receiver:
        url = f"https://me.example:{receiver.port}/hook"
        job = outcome(store, url, tls=trusting, lookup=answering("127.0.0.1"))
    assert (job.webhook_state, job.webhook_attempts) == ("delivered", 1)


def test_a_certificate_of_another_name_is_refused(store: JobStore, certified) -> None:
    server, trusting = certified
    with Receiver(tls=server) as receiver:
        url = f"https://you.example:{receiver.port}/hook"
        job = outcome(store, url, tls=trusting, lookup=answering("127.0.0.1"))
    assert receiver.calls == [] and "certificate" in job.webhook_error


def test_a_certificate_that_nobody_vouches_for_is_refused(store: JobStore, certified) -> None:
    server, _ = certified
    with Receiver(tls=server) as receiver:
        job = outcome(store, f"https://me.example:{receiver.port}/hook", tls=None, lookup=answering("127.0.0.1"))
    assert receiver.calls == [] and "certificate" in job.webhook_error


# Shutdown and failures


def _send(path: Path) -> None:
    """A sender in a separate process."""
    sender = WebhookSender(WebhookQueue(JobStore(path).database), make, True, poll_s=0.01, lease_s=1.0)
    sender.start()
    time.sleep(LIMIT_S)


@pytest.mark.usefixtures("starts_process")
def test_a_call_whose_sender_was_killed_is_sent_by_the_next(store: JobStore) -> None:
    release = threading.Event()
    with Receiver(lambda _: release.wait(LIMIT_S), 200) as receiver:
        job_id = finish(store, receiver.url)
        process = multiprocessing.get_context("spawn").Process(target=_send, args=(store.database.path,))
        process.start()
        receiver.wait_for(1)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        with sending(store):
            job = settled(store, job_id)
        release.set()
    assert (job.webhook_state, job.webhook_attempts) == ("delivered", 2)
    assert receiver.calls[0].headers["webhook-id"] == receiver.calls[1].headers["webhook-id"]


def test_a_call_that_is_under_way_at_the_end_is_waited_for(store: JobStore) -> None:
    release = threading.Event()
    with Receiver(
        lambda handler: (release.wait(LIMIT_S), handler.send_response(200), handler.end_headers())
    ) as receiver:
        job_id = finish(store, receiver.url)
        with sending(store) as sender:
            receiver.wait_for(1)
            threading.Timer(0.2, release.set).start()
            assert sender.stop(LIMIT_S) is True
    assert store.get(job_id).webhook_state == "delivered"


def test_a_call_that_does_not_end_in_time_is_still_owed(store: JobStore) -> None:
    release = threading.Event()
    with Receiver(lambda _: release.wait(LIMIT_S)) as receiver:
        job_id = finish(store, receiver.url)
        with sending(store) as sender:
            receiver.wait_for(1)
            assert (sender.stop(0.05), store.get(job_id).webhook_state) == (False, "waiting")
            release.set()


def test_a_stopped_sender_takes_nothing(store: JobStore) -> None:
    with Receiver() as receiver:
        with sending(store) as sender:
            sender.stop()
        job_id = finish(store, receiver.url)
    assert store.get(job_id).webhook_attempts == 0


def test_a_sender_that_was_never_started_can_be_stopped(store: JobStore) -> None:
    assert WebhookSender(WebhookQueue(store.database), make, True).stop() is True


def test_a_store_that_fails_for_a_while_ends_nothing(store: JobStore, caplog: pytest.LogCaptureFixture) -> None:
    with Receiver() as receiver, sending(store):
        with sqlite3.connect(store.database.path) as connection:
            connection.execute("ALTER TABLE jobs RENAME TO elsewhere")
        until(lambda: "webhooks are delayed: the job store" in caplog.text)
        with sqlite3.connect(store.database.path) as connection:
            connection.execute("ALTER TABLE elsewhere RENAME TO jobs")
        assert settled(store, finish(store, receiver.url)).webhook_state == "delivered"


def test_a_job_that_cannot_be_told_is_given_up_and_does_not_hold_up_the_others(store: JobStore) -> None:
    with Receiver() as receiver, sending(store):
        store.enqueue(REQUEST, "tiny", {"dialect": "wavespeed"}, webhook=receiver.url)  # without a base URL
        broken = store.claim("w", "tiny", 60)
        store.succeed(broken, {})
        assert settled(store, finish(store, receiver.url)).webhook_state == "delivered"
        assert settled(store, broken.job_id).webhook_error == "the call cannot be built: KeyError"


def test_two_senders_of_one_store_send_each_call_once(store: JobStore) -> None:
    with Receiver() as receiver:
        jobs = [finish(store, receiver.url) for _ in range(20)]
        with sending(store), sending(store):
            assert {settled(store, job).webhook_state for job in jobs} == {"delivered"}
    assert len(receiver.calls) == 20


@pytest.mark.parametrize("status", [200, 500])
def test_logs_and_errors_name_the_host_alone(store: JobStore, caplog: pytest.LogCaptureFixture, status: int) -> None:
    with Receiver(status) as receiver, caplog.at_level(logging.DEBUG):
        job = outcome(store, f"{receiver.url}/secret-path?token=secret-token")
    assert "127.0.0.1" in caplog.text and "secret" not in caplog.text + job.webhook_error
