"""The HTTP side of a hosted service: one POST that is never repeated, GETs that are, and a download.

Every way in which a call can fail becomes one of this package's errors here, and nowhere else. The
key goes into the header of calls to the service, and nowhere else.
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

# Raised before a byte of the request could have been sent.
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)
_CHUNK_BYTES = 1 << 18
T = TypeVar("T")


class FaultReader(Protocol):
    """The ``fault_from_wire`` of a dialect."""

    def __call__(self, status: int, body: object) -> Fault: ...


@dataclass(frozen=True)
class Pacing:
    """How patient the calls are, all in seconds.

    The pause between two polls grows by ``factor`` from ``first_s`` to ``longest_s``, each varied
    at random by a fifth, so that many clients do not come at once. ``patience_s`` is how long a
    service may fail without a break before it is given up, ``answer_s`` how long one answer may
    take, ``limit_s`` how long a task may.
    """

    first_s: float = 1.0
    factor: float = 1.5
    longest_s: float = 10.0
    patience_s: float = 300.0
    answer_s: float = 60.0
    limit_s: float = 3600.0

    def pause(self, attempt: int) -> float:
        """The pause after the poll number ``attempt``, counted from 0."""
        steps = min(attempt, 50)
        return min(self.longest_s, self.first_s * self.factor**steps) * random.uniform(0.8, 1.2)


class Transient(Exception):
    """A GET that may succeed if repeated; holds the error for when patience ends."""

    def __init__(self, error: HostedError, retry_after_s: float | None = None):
        self.error = error
        self.retry_after_s = retry_after_s


class ServiceClient:
    """Calls to one service with one key.

    Args:
        name: for messages.
        read_fault: the dialect's reading of a refusal.
        transport: carries the calls; None is the network.
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
        """Send once, whatever happens.

        Raises:
            SubmissionLostError: it was sent, or may have been, and there is no answer to rely on.
            HostedError: it was refused, or could not be sent: the service has made nothing of it.
        """
        try:
            answer = self._client.post(self.base_url + path, json=body, headers=self._headers())
        except _NEVER_SENT as error:
            raise self._unreachable(error) from error
        except httpx.HTTPError as error:
            raise self._lost(f"its answer did not come: {_say(error)}") from error
        if answer.is_success:
            try:
                return answer.json()
            except ValueError as error:
                raise self._lost("its answer is not JSON") from error
        remedy = "change the request, or use another backend"
        if answer.status_code in (404, 405) or answer.is_redirect:
            remedy = f"is {self.base_url} the right address?"
        refusal = self._refusal(answer, remedy)
        if not self._fault(answer).nothing_made:
            # Such as a gateway's: what stands behind it may have taken the task.
            raise self._lost(f"it answered with HTTP {answer.status_code}") from refusal
        raise refusal

    def get(self, path: str, params: dict[str, str] | None = None) -> object:
        """One GET of JSON.

        Raises:
            Transient: no connection, 429 or 5xx: worth repeating.
            HostedError: anything else that is not an answer.
        """
        try:
            answer = self._client.get(self.base_url + path, params=params, headers=self._headers())
        except httpx.HTTPError as error:
            raise Transient(self._unreachable(error)) from error
        if not answer.is_success:
            refusal = self._refusal(answer, "if it stays so, give the job up with hunyuan-local resume --forget")
            if answer.status_code == 429 or answer.status_code >= 500:
                raise Transient(refusal, _wait(answer))
            raise refusal
        try:
            return answer.json()
        except ValueError as error:
            kind = answer.headers.get("content-type", "no type")
            raise InvalidAnswerError(
                f"{self.name} answered with something that is not JSON ({kind}); is {self.base_url} the right address?"
            ) from error

    def poll(
        self, ask: Callable[[], T | None], cancel: threading.Event, deadline: float, tell: Callable[[str], None]
    ) -> T:
        """Repeat ``ask`` until it gives something other than None.

        Args:
            deadline: when to give up, on the monotonic clock.
            tell: told once of each spell of trouble.

        Raises:
            GenerationCancelledError: ``cancel`` was set.
            TaskTimeoutError: nothing by the deadline.
            HostedError: what ``ask`` raised, a transient failure only when patience has ended.
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
                    tell(f"{failure.error}; trying again")
                if now - failing_since > self._pacing.patience_s:
                    raise failure.error from failure
                pause = max(pause, failure.retry_after_s or 0)
            attempt += 1
            left = deadline - time.monotonic()
            if cancel.wait(max(0.0, min(pause, left))):
                raise GenerationCancelledError("cancelled while waiting for the service")
            if left <= pause:
                raise TaskTimeoutError(
                    f"{self.name} was not done within the {self._pacing.limit_s:g} s of the time limit (--timeout)"
                )

    def download(self, url: str, target: Path, on_percent: Callable[[int], None], cancel: threading.Event) -> None:
        """Stream a finished file to ``target``, without the key, which is not for storage servers.

        Raises:
            Transient: no connection, 429, 5xx, or fewer bytes than announced.
            DownloadError: the address does not work, or gives something other than a file.
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
                    raise Transient(DownloadError(f"{done} of {total} bytes came from {_place(url)}"))
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
            raise DownloadError(f"{self.name} named {url!r}, which is no address of a file: {_say(error)}") from error
        except httpx.HTTPError as error:
            why = f"{_say(error)}{advice(url, error)}"
            raise Transient(DownloadError(f"{_place(url)}: the download broke off: {why}")) from error
        except OSError as error:
            raise DownloadError(f"{target.parent}: cannot be written: {error}; check the disk") from error

    def _check_file(self, answer: httpx.Response, url: str) -> None:
        if answer.status_code >= 500 or answer.status_code == 429:
            raise Transient(DownloadError(f"{_place(url)} answered HTTP {answer.status_code}"), _wait(answer))
        if not answer.is_success:
            raise DownloadError(
                f"{_place(url)} answered HTTP {answer.status_code}: the address has expired or is not open; if it "
                "stays so, give the job up with hunyuan-local resume --forget"
            )
        if answer.headers.get("content-type", "").startswith(("text/html", "application/json")):
            raise DownloadError(f"{_place(url)} gave a page instead of a video")

    def scrub(self, text: str) -> str:
        """``text`` without the key, should a service repeat it, and of a length to show."""
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
        """The error that an HTTP answer other than 2xx stands for."""
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
                return UnreachableError(f"{said}; the service is in trouble: try again later")
        field = f" [{fault.field}]" if fault.field else ""
        return RequestRefusedError(f"{said}{field}; {remedy}")

    def _unreachable(self, error: Exception) -> UnreachableError:
        return UnreachableError(
            f"{self.name} cannot be reached at {self.base_url}: {_say(error)}{advice(self.base_url, error)}; check the "
            "address and the network"
        )

    def _lost(self, why: str) -> SubmissionLostError:
        return SubmissionLostError(f"{self.name} was sent the request, and {why}")


def retry_after_s(header: str | None, now: Callable[[], float] = time.time) -> float | None:
    """Seconds that a ``Retry-After`` header asks for: a number, or a date (RFC 9110, 10.2.3)."""
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
    """The address without its query, which may be a signature."""
    return url.split("?", 1)[0]


def _say(error: Exception) -> str:
    return str(error) or type(error).__name__
