"""A language model behind a server with OpenAI's chat completions API, such as vLLM, llama.cpp or Ollama."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as StillRunning
from typing import Annotated, Any, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..config import RewriteConfig
from ..config.network import advice, http_client
from ..errors import ConfigError, GenerationCancelledError, RewriteError
from .chat_model import Answer, Messages, ShouldStop

KEY_VARIABLE = "HUNYUAN_LOCAL_REWRITE_API_KEY"
_LOOK_S = 0.1  # interval between checks for cancellation


class _Said(BaseModel):
    """The fields that we need of an answer; servers differ in the others."""

    model_config = ConfigDict(extra="ignore")


class _Message(_Said):
    content: str | None = None


class _Choice(_Said):
    message: _Message
    finish_reason: str | None = None


class _Completion(_Said):
    choices: Annotated[list[_Choice], Field(min_length=1)]


class _Model(_Said):
    id: str


class _Models(_Said):
    data: Annotated[list[_Model], Field(min_length=1)]


A = TypeVar("A", bound=_Said)


class EndpointWriter:
    """A :class:`.writer.Writer` that calls an HTTP server.

    Args:
        config: with an ``endpoint``. The environment variable ``HUNYUAN_LOCAL_REWRITE_API_KEY`` holds the server's
            key, if it needs one.

    Raises:
        ConfigError: the endpoint is not an HTTP URL, or the key contains invalid characters.
    """

    def __init__(self, config: RewriteConfig):
        address = config.endpoint or ""
        if not _is_address(address):
            raise ConfigError(
                f"rewrite_endpoint={address!r}: must be a URL such as http://127.0.0.1:8080/v1, without a user or a "
                f"password; set a key with {KEY_VARIABLE}"
            )
        self._config = config
        self._url = address.rstrip("/")
        self._model = config.model_id
        key = os.environ.get(KEY_VARIABLE, "").strip()
        if not key.isascii() or not key.isprintable():
            raise ConfigError(f"{KEY_VARIABLE}: contains invalid characters; copy it again")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    @property
    def name(self) -> str:
        """The model and the URL of its server."""
        return f"{self._model} at {self._url}"

    def write(self, messages: Messages, max_new_tokens: int, should_stop: ShouldStop) -> Answer:
        """The model's answer, in a single attempt, since a retry would exceed the time limit.

        Raises:
            RewriteError: the server cannot be reached, refuses, takes too long or sends an unexpected answer.
            GenerationCancelledError: ``should_stop`` returned True.
        """
        client = http_client(self._url, headers=self._headers, timeout=self._config.timeout_s)
        call: Future[Answer] = Future()

        def ask() -> None:
            try:
                with client:
                    call.set_result(self._ask(client, messages, max_new_tokens))
            except BaseException as error:  # passed on to the waiting thread
                call.set_exception(error)

        # A daemon thread, so that a call that hangs is abandoned and does not block the exit of the process.
        threading.Thread(target=ask, name="rewriting", daemon=True).start()
        try:
            return self._await(call, should_stop)
        except httpx.HTTPError as error:
            raise RewriteError(
                f"{self._url}: {type(error).__name__}: {error}{advice(self._url, error)}; check --rewrite-endpoint",
                may_pass=True,
            ) from error

    def close(self) -> None:
        """Do nothing: no connection is kept between calls."""

    def _ask(self, client: httpx.Client, messages: Messages, max_new_tokens: int) -> Answer:
        """Send the request for one answer; asks for the name of the model first if it is not configured."""
        if self._model is None:
            self._model = _read(client.get(f"{self._url}/models"), _Models).data[0].id
        body = {
            "model": self._model,
            "messages": messages,
            "max_tokens": max_new_tokens,
            "temperature": 0,  # rewrite the same prompt in the same way
            "stream": False,
        }
        choice = _read(client.post(f"{self._url}/chat/completions", json=body), _Completion).choices[0]
        return Answer(choice.message.content or "", choice.finish_reason != "length")

    def _await(self, call: Future[Answer], should_stop: ShouldStop) -> Answer:
        """Wait for the answer with a total time limit; the timeouts of httpx limit only each read or write."""
        deadline = time.monotonic() + self._config.timeout_s
        while True:
            try:
                return call.result(min(_LOOK_S, max(0.0, deadline - time.monotonic())))
            except StillRunning:
                if should_stop():
                    raise GenerationCancelledError("cancelled while the prompt was being rewritten") from None
                if time.monotonic() >= deadline:
                    raise RewriteError(
                        f"{self._url} took longer than {self._config.timeout_s:g} s; raise --rewrite-timeout",
                        may_pass=True,
                    ) from None


def _is_address(address: str) -> bool:
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        return False
    return url.scheme in ("http", "https") and bool(url.host) and not url.userinfo


def _read(response: httpx.Response, kind: type[A]) -> A:
    """Parse a server's answer.

    Raises:
        RewriteError: the server refused, or the answer has an unexpected format.
    """
    if not response.is_success:
        busy = response.status_code == 429 or response.status_code >= 500
        raise RewriteError(f"{response.url} answered HTTP {response.status_code}: {_said(response)}", may_pass=busy)
    try:
        return kind.model_validate_json(response.content)
    except ValidationError as error:
        raise RewriteError(f"{response.url} is not compatible with OpenAI's API: {response.text[:120]!r}") from error


def _said(response: httpx.Response) -> str:
    """The message in an error answer: that of OpenAI's format, or else the start of the text."""
    try:
        body: Any = response.json()
        return str(body["error"]["message"])[:200]
    except (ValueError, TypeError, KeyError):
        return repr(response.text[:120])
