"""A language model behind a local server in OpenAI's format."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from chat_server import ChatServer

from hunyuan_local.config import RewriteConfig
from hunyuan_local.errors import ConfigError, GenerationCancelledError, RewriteError
from hunyuan_local.rewriting import Rewriter
from hunyuan_local.schema import GenerationRequest

REQUEST = GenerationRequest(prompt="a red circle moving right", rewrite="master")


def rewrite(url: str, should_stop=lambda: False, **settings: object) -> GenerationRequest:
    config = RewriteConfig(endpoint=url, **settings)
    return (
        Rewriter(config, lambda: pytest.fail("a model of this machine was asked")).rewrite(REQUEST, should_stop).request
    )


@pytest.mark.usefixtures("starts_process")  # the client queries the system about its platform
def test_the_published_client_understands_the_server_of_these_tests(chat: ChatServer) -> None:
    import openai

    client = openai.OpenAI(base_url=chat.url, api_key="none")
    said = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hello"}])
    assert said.choices[0].message.content == chat.answer


def test_the_answer_becomes_the_prompt(chat: ChatServer) -> None:
    assert rewrite(chat.url).prompt == chat.answer


def test_the_server_is_sent_the_wording_and_the_prompt(chat: ChatServer) -> None:
    rewrite(chat.url)
    system, user = chat.asked[0]["messages"]
    assert "director of photography" in system["content"]
    assert user == {"role": "user", "content": REQUEST.prompt}


def test_without_a_name_the_servers_first_model_is_asked(chat: ChatServer) -> None:
    rewrite(chat.url)
    assert chat.asked[0]["model"] == "served-model"


def test_a_name_that_was_given_is_asked_for(chat: ChatServer) -> None:
    rewrite(chat.url, model_id="another")
    assert chat.asked[0]["model"] == "another"


def test_the_key_is_shown(chat: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUNYUAN_LOCAL_REWRITE_API_KEY", "secret")
    rewrite(chat.url)
    assert {headers["Authorization"] for _, headers, _ in chat.calls} == {"Bearer secret"}


def test_without_a_key_none_is_shown(chat: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HUNYUAN_LOCAL_REWRITE_API_KEY", raising=False)
    rewrite(chat.url)
    assert all("Authorization" not in headers for _, headers, _ in chat.calls)


def test_a_slow_server_is_left_when_the_time_is_over(chat: ChatServer) -> None:
    chat.opened.clear()
    with pytest.raises(RewriteError, match=r"took longer than 0.3 s; raise --rewrite-timeout"):
        rewrite(chat.url, timeout_s=0.3)


def test_cancelling_ends_the_waiting(chat: ChatServer) -> None:
    chat.opened.clear()
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(GenerationCancelledError):
        rewrite(chat.url, cancel.is_set)


def test_an_answer_that_was_cut_off_is_refused(chat: ChatServer) -> None:
    chat.finish_reason = "length"
    with pytest.raises(RewriteError, match="did not finish within 240 tokens"):
        rewrite(chat.url)


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, b'{"error": {"message": "no such key"}}', "answered HTTP 401: no such key"),
        (503, b"<html>busy</html>", "answered HTTP 503: '<html>busy</html>'"),
        (200, b'{"choices": []}', "is not compatible with OpenAI's API"),
        (200, b"not json", "is not compatible with OpenAI's API"),
        (200, b'{"choices": [{"message": {"content": null}}]}', "did not write a prompt"),
    ],
)
def test_what_is_no_answer_is_reported(chat: ChatServer, status: int, body: bytes, words: str) -> None:
    chat.status, chat.body = status, body
    with pytest.raises(RewriteError, match=words):
        rewrite(chat.url)


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(RewriteError, match=r"http://127\.0\.0\.1:9/v1: ConnectError.*check --rewrite-endpoint"):
        rewrite("http://127.0.0.1:9/v1")


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8080", "ftp://host/v1", "http://", "http://host:abc/v1", "http://user:secret@host/v1"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"rewrite_endpoint=.*must be a URL such as http://127\.0\.0\.1:8080/v1"):
        rewrite(address)


def test_a_key_that_no_header_can_hold_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUNYUAN_LOCAL_REWRITE_API_KEY", "se\u0107ret")
    with pytest.raises(ConfigError, match="HUNYUAN_LOCAL_REWRITE_API_KEY: contains invalid characters") as caught:
        rewrite("http://127.0.0.1:9/v1")
    assert "ret" not in str(caught.value)


@pytest.mark.parametrize(("status", "may_pass"), [(429, True), (503, True), (400, False), (401, False)])
def test_transient_and_permanent_failures_are_distinguished(chat: ChatServer, status: int, may_pass: bool) -> None:
    chat.status, chat.body = status, b"{}"
    with pytest.raises(RewriteError) as caught:
        rewrite(chat.url)
    assert caught.value.may_pass == may_pass


@pytest.mark.usefixtures("starts_process")
def test_a_call_that_hangs_does_not_keep_the_process_from_ending(chat: ChatServer) -> None:
    chat.opened.clear()
    code = (
        "from hunyuan_local.config import RewriteConfig\n"
        "from hunyuan_local.rewriting.endpoint import EndpointWriter\n"
        f"writer = EndpointWriter(RewriteConfig(endpoint={chat.url!r}, timeout_s=3600))\n"
        "try:\n    writer.write([], 1, lambda: True)\n"
        "except Exception as error:\n    print(type(error).__name__)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout.strip()) == (0, "GenerationCancelledError")
