"""The HTTP client for a hosted service: a POST that is never repeated, GETs that are retried, and downloads.

Only this module translates failed calls into errors of this package. The key is sent only in the header of calls to
the service.
"""

from __future__ import annotations

import email.utils
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import httpx

from ...config.network import advice, http_client
from ...errors import (
    AuthenticationError,
    DownloadError,
    GenerationCancelledError,
    HostedError,
    InvalidAnswerError,
    RateLimitError,
    RequestRefusedError,
    SubmissionLostError,
    TaskTimeoutError,
    UnreachableError,
)
from ...wires.base import Fault

# Errors that guarantee that no byte of the request was sent.
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)
_CHUNK_BYTES = 1 << 18
T = TypeVar("T")


class FaultReader(Protocol):
    """The ``fault_from_wire`` of a dialect."""

    def __call__(self, status: int, body: object) -> Fault: ...


@dataclass(frozen=True)
class Pacing:
    """Polling intervals and time limits in seconds.

    The pause between polls grows by ``factor`` from ``first_s`` to ``longest_s``, with 20% jitter so that clients do
    not poll in lockstep. ``patience_s`` limits how long a service may fail continuously, ``answer_s`` how long one
    answer may take, and ``limit_s`` how long a task may take.
    """

    first_s: float = 1.0
    factor: float = 1.5
    longest_s: float = 10.0
    patience_s: float = 300.0
    answer_s: float = 60.0
    limit_s: float = 3600.0

    def pause(self, attempt: int) -> float:
        """The pause in seconds after poll number ``attempt``, counted from 0."""
        steps = min(attempt, 50)
        return min(self.longest_s, self.first_s * self.factor**steps) * random.uniform(0.8, 1.2)


class Transient(Exception):
    """A failed GET that may succeed if retried; holds the error to raise when ``patience_s`` has passed."""

    def __init__(self, error: HostedError, retry_after_s: float | None = None):
        self.error = error
        self.retry_after_s = retry_after_s


class ServiceClient:
    """A client for one service and one key.

    Args:
        name: name of the service in messages.
        read_fault: parses an error answer in the service's dialect.
        transport: the httpx transport; None uses the network.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        key: str,
        read_fault: FaultReader,
        pacing: Pacing,
        transport: httpx.BaseTransport | None = None,
    ):
        self.name, self._key, self._read_fault, self._pacing = name, key, read_fault, pacing
        self.base_url = base_url
        timeout = httpx.Timeout(pacing.answer_s, connect=min(15.0, pacing.answer_s))
        agent = {"User-Agent": "hunyuan-local"}
        self._client = http_client(base_url, timeout=timeout, transport=transport, headers=agent)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def post(self, path: str, body: dict[str, Any]) -> object:
        """Send a POST once, without retries.

        Raises:
            SubmissionLostError: it was or may have been sent, and there is no reliable answer.
            HostedError: it was refused or could not be sent, so the service has not created a task.
        """
        try:
            answer = self._client.post(self.base_url + path, json=body, headers=self._headers())
        except _NEVER_SENT as error:
            raise self._unreachable(error) from error
        except httpx.HTTPError as error:
            raise self._lost(f"no answer arrived: {_say(error)}") from error
        if answer.is_success:
            try:
                return answer.json()
            except ValueError as error:
                raise self._lost("the answer is not JSON") from error
        remedy = "change the request, or use another backend"
        if answer.status_code in (404, 405) or answer.is_redirect:
            remedy = f"is {self.base_url} the right address?"
        refusal = self._refusal(answer, remedy)
        if not self._fault(answer).nothing_made:
            # For example a gateway error: the service behind the gateway may have accepted the task.
            raise self._lost(f"the answer was HTTP {answer.status_code}") from refusal
        raise refusal

    def put(self, url: str, headers: dict[str, str], content: bytes) -> None:
        """Send a file to an address that the service has given. The key is not sent.

        Raises:
            RateLimitError, UnreachableError: the address does not work, or not now.
            RequestRefusedError: the address refuses the file.
        """
        try:
            answer = self._client.put(url, headers=headers, content=content)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise UnreachableError(f"{_place(url)} cannot be reached: {_say(error)}{advice(url, error)}") from error
        if not answer.is_success:
            said = self.scrub(answer.text) or "no reason given"
            said = f"{_place(url)} answered HTTP {answer.status_code}: {said}"
            if answer.status_code == 429:
                raise RateLimitError(f"{said}; try again later", _wait(answer))
            if answer.status_code >= 500:
                raise UnreachableError(f"{said}; the storage has a problem; try again later")
            raise RequestRefusedError(said)

    def get(self, path: str, params: dict[str, str] | None = None) -> object:
        """Send one GET and return the JSON answer.

        Raises:
            Transient: no connection, HTTP 429 or 5xx; can be retried.
            HostedError: any other failure.
        """
        try:
            answer = self._client.get(self.base_url + path, params=params, headers=self._headers())
        except httpx.HTTPError as error:
            raise Transient(self._unreachable(error)) from error
        if not answer.is_success:
            refusal = self._refusal(answer, "if this persists, give up the job with hunyuan-local resume --forget")
            if answer.status_code == 429 or answer.status_code >= 500:
                raise Transient(refusal, _wait(answer))
            raise refusal
        try:
            return answer.json()
        except ValueError as error:
            kind = answer.headers.get("content-type", "no type")
            raise InvalidAnswerError(
                f"the answer from {self.name} is not JSON ({kind}); is {self.base_url} the right address?"
            ) from error

    def poll(
        self, ask: Callable[[], T | None], cancel: threading.Event, deadline: float, tell: Callable[[str], None]
    ) -> T:
        """Repeat ``ask`` until it returns something other than None.

        Args:
            deadline: monotonic time at which to stop.
            tell: called once per series of consecutive failures.

        Raises:
            GenerationCancelledError: ``cancel`` was set.
            TaskTimeoutError: no result before the deadline.
            HostedError: an error of ``ask``; transient errors only after failing for ``patience_s``.
        """
        failing_since: float | None = None
        attempt = 0
        while True:
            pause = self._pacing.pause(attempt)
            try:
                if (found := ask()) is not None:
                    return found
                failing_since = None
            except Transient as failure:
                now = time.monotonic()
                if failing_since is None:
                    failing_since = now
                    tell(f"{failure.error}; retrying")
                if now - failing_since > self._pacing.patience_s:
                    raise failure.error from failure
                pause = max(pause, failure.retry_after_s or 0)
            attempt += 1
            left = deadline - time.monotonic()
            if cancel.wait(max(0.0, min(pause, left))):
                raise GenerationCancelledError("cancelled while waiting for the service")
            if left <= pause:
                raise TaskTimeoutError(
                    f"{self.name} did not finish within the time limit of {self._pacing.limit_s:g} s (--timeout)"
                )

    def download(self, url: str, target: Path, on_percent: Callable[[int], None], cancel: threading.Event) -> None:
        """Stream a finished file to ``target``. The key is not sent, since storage servers must not see it.

        Raises:
            Transient: no connection, HTTP 429 or 5xx, or fewer bytes than announced.
            DownloadError: the URL does not work, or does not point to a file.
            GenerationCancelledError: ``cancel`` was set.
        """
        try:
            with self._client.stream("GET", url, follow_redirects=True) as answer:
                self._check_file(answer, url)
                total, done = int(answer.headers.get("content-length", 0)), 0
                with target.open("wb") as file:
                    for chunk in answer.iter_bytes(_CHUNK_BYTES):
                        if cancel.is_set():
                            raise GenerationCancelledError("cancelled while downloading")
                        file.write(chunk)
                        done += len(chunk)
                        if total:
                            on_percent(min(100, 100 * done // total))
                if total and answer.num_bytes_downloaded != total:
                    raise Transient(DownloadError(f"{_place(url)}: received only {done} of {total} bytes"))
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
            raise DownloadError(f"{self.name} returned an invalid file URL, {url!r}: {_say(error)}") from error
        except httpx.HTTPError as error:
            why = f"{_say(error)}{advice(url, error)}"
            raise Transient(DownloadError(f"{_place(url)}: the download failed: {why}")) from error
        except OSError as error:
            raise DownloadError(f"{target.parent}: cannot be written: {error}; check the disk") from error

    def _check_file(self, answer: httpx.Response, url: str) -> None:
        if answer.status_code >= 500 or answer.status_code == 429:
            raise Transient(DownloadError(f"{_place(url)} answered HTTP {answer.status_code}"), _wait(answer))
        if not answer.is_success:
            raise DownloadError(
                f"{_place(url)} answered HTTP {answer.status_code}: the URL has expired or is not public; if this "
                "persists, give up the job with hunyuan-local resume --forget"
            )
        if answer.headers.get("content-type", "").startswith(("text/html", "application/json")):
            raise DownloadError(f"{_place(url)} returned a page instead of a video")

    def scrub(self, text: str) -> str:
        """``text`` without the key, in case the service repeats it, cut to 500 characters."""
        text = " ".join(text.split()).replace(self._key, "***")
        return text if len(text) <= 500 else f"{text[:497]}..."

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}"}

    def _fault(self, answer: httpx.Response) -> Fault:
        try:
            return self._read_fault(answer.status_code, answer.json())
        except ValueError:
            return self._read_fault(answer.status_code, None)

    def _refusal(self, answer: httpx.Response, remedy: str) -> HostedError:
        """The error for an HTTP answer other than 2xx."""
        fault = self._fault(answer)
        said = f"{self.name} says: {self.scrub(fault.message)}" if fault.message else f"{self.name} gave no reason"
        said = f"{said} (HTTP {answer.status_code})"
        match fault.kind:
            case "no_key" | "unauthorized" | "forbidden":
                return AuthenticationError(f"{said}; check the key and the account")
            case "rate_limited":
                wait = _wait(answer)
                remedy = "wait a minute" if wait is None else f"wait {wait:.0f} s"
                return RateLimitError(f"{said}; {remedy} and try again", wait)
            case "internal" | "unavailable":
                return UnreachableError(f"{said}; the service has a problem; try again later")
        field = f" [{fault.field}]" if fault.field else ""
        return RequestRefusedError(f"{said}{field}; {remedy}")

    def _unreachable(self, error: Exception) -> UnreachableError:
        return UnreachableError(
            f"{self.name} cannot be reached at {self.base_url}: {_say(error)}{advice(self.base_url, error)}; check the "
            "address and the network"
        )

    def _lost(self, why: str) -> SubmissionLostError:
        return SubmissionLostError(f"the request was sent to {self.name}, but {why}")


def retry_after_s(header: str | None, now: Callable[[], float] = time.time) -> float | None:
    """Seconds to wait by a ``Retry-After`` header, which holds a number or a date (RFC 9110, section 10.2.3)."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - now())
    except ValueError:
        return None


def _wait(answer: httpx.Response) -> float | None:
    return retry_after_s(answer.headers.get("retry-after"))


def _place(url: str) -> str:
    """The URL without its query, which may contain a signature."""
    return url.split("?", 1)[0]


def _say(error: Exception) -> str:
    return str(error) or type(error).__name__
