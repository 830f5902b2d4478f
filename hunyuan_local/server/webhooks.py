"""Calls at a job's end: their address checked when the job comes, their content made, and their sending.

A call is owed by the job's row in the store until its receiver answers with 2xx, or until its
dialect's number of retries is used up. It arrives at least once; a receiver tells a repeat by its
id, where the dialect has one. How one call is made safe stands in :mod:`outgoing`.
"""

from __future__ import annotations

import json
import logging
import random
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx

from ..config.network import tls_context
from ..errors import ConfigError, FieldProblem, InvalidRequestError, StoreError
from ..jobs.job import Job
from ..jobs.webhook_queue import WebhookQueue
from ..schema import JobView
from ..wires import novita, wavespeed
from .addresses import Lookup, PrivateAddressError, find_addresses
from .outgoing import CallFailedError, post

logger = logging.getLogger(__name__)

MAX_URL_CHARACTERS = 2048
DELAYS_S = (5.0, 30.0, 120.0, 600.0, 3600.0)
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")
_LOOKUP_S = 2.0
_TROUBLE_POLLS = 10
_DIALECTS = {dialect.NAME: dialect for dialect in (wavespeed, novita)}


def check_webhook(url: str, allow_private: bool, *, lookup: Lookup = socket.getaddrinfo) -> None:
    """Whether an address may be called at a job's end.

    A name that cannot be looked up within 2 s is accepted: it is looked up again, and checked, when
    it is called.

    Raises:
        InvalidRequestError: it is no http(s) URL, or holds a password, or, unless ``allow_private``,
            leads to an address that is not public.
    """
    try:
        target = httpx.URL(url) if len(url) <= MAX_URL_CHARACTERS else None
    except (httpx.InvalidURL, ValueError):
        raise _refusal(url, "is no URL; give one such as https://host/path") from None
    if target is None:
        raise _refusal(url, f"is longer than {MAX_URL_CHARACTERS} characters")
    host = target.raw_host.decode("ascii")
    port = target.port if target.port is not None else 443 if target.scheme == "https" else 80
    is_host = ":" in host or _HOST.fullmatch(host)  # a colon: an IPv6 address, which httpx has read
    if target.scheme not in ("http", "https") or not is_host or not 0 < port < 2**16:
        raise _refusal(url, "must be like https://host/path or http://host:port/path")
    if target.userinfo:
        raise _refusal(url, "must not hold a name or a password; put a secret of your own into the query instead")
    try:
        find_addresses(host, port, allow_private=allow_private, limit_s=_LOOKUP_S, lookup=lookup)
    except PrivateAddressError as error:
        raise _refusal(url, str(error)) from error
    except OSError as error:
        logger.info("webhook at %s: not found for now: %s", target.host, error)


def _refusal(url: str, rule: str) -> InvalidRequestError:
    return InvalidRequestError([FieldProblem("webhook", re.sub(r"//[^/]*@", "//***@", url), rule)])


@dataclass(frozen=True)
class WebhookCall:
    """What is sent at one try, and the dialect's patience: ``retries`` follow a first try that fails."""

    body: bytes
    headers: dict[str, str]
    retries: int
    timeout_s: float


def make_call(
    job: Job, view: Callable[[Job, str], JobView], secret: str, now: Callable[[], float] = time.time
) -> WebhookCall | None:
    """The call for a finished job in the words of the dialect that it came in; None if that one has no calls.

    Args:
        view: what can be said of a job, at a base URL.
        secret: ``whsec_...``, for the dialect that signs.
    """
    dialect = _DIALECTS.get(job.origin["dialect"])
    if dialect is None:
        return None
    base_url = job.origin["base_url"]
    body = json.dumps(dialect.webhook_to_wire(view(job, base_url), base_url).to_json()).encode()
    # A job that is run again ends again: that is another event.
    event_id = f"{job.job_id}-{round((job.finished_at or 0) * 1000)}"
    headers = dialect.webhook_headers(event_id, int(now()), body, secret)
    return WebhookCall(body, headers, dialect.WEBHOOK_RETRIES, dialect.WEBHOOK_TIMEOUT_S)


def _trusted(url: str) -> ssl.SSLContext:
    """Whom a call trusts; without TLS nobody is asked for.

    Raises:
        CallFailedError: the certificates that the environment names cannot be read.
    """
    try:
        return tls_context() if url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    except ConfigError as error:
        raise CallFailedError(str(error)) from error


class WebhookSender:
    """Sends what a webhook queue owes, from its own threads; a slow receiver holds one of them, within its timeout.

    Args:
        make: the content of a job's call, made at each try; None if its dialect has none.
        allow_private: calls may go to loopback, private and link-local addresses.
        delays_s: seconds before each retry, at least one, prolonged by up to a fifth at random; the last one stays.
        at_once: so many calls at a time.
        poll_s: seconds between two looks into the queue.
        lease_s: a call whose sender died is owed again after so many seconds; longer than any call takes.
        tls: whom to trust; the certificates that the rest of the package trusts if not given.
    """

    def __init__(
        self,
        webhook_queue: WebhookQueue,
        make: Callable[[Job], WebhookCall | None],
        allow_private: bool,
        *,
        delays_s: Sequence[float] = DELAYS_S,
        at_once: int = 4,
        poll_s: float = 1.0,
        lease_s: float = 60.0,
        tls: ssl.SSLContext | None = None,
        lookup: Lookup = socket.getaddrinfo,
    ):
        self._webhook_queue, self._make, self._allow_private = webhook_queue, make, allow_private
        self._delays_s, self._poll_s, self._lease_s = delays_s, poll_s, lease_s
        self._tls = tls
        if tls is None:
            try:
                tls_context()
            except ConfigError as error:  # a server without webhooks needs no certificates
                logger.warning("webhooks to https:// cannot be called: %s", error)
        self._lookup = lookup
        self._turn = threading.Lock()
        self._stopping = threading.Event()
        # They do not hold up the end of the process: a call that is cut off is owed again.
        self._threads = [
            threading.Thread(target=self._work, name=f"webhooks-{number}", daemon=True) for number in range(at_once)
        ]

    def start(self) -> None:
        """Begin; once in a sender's life."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 2.0) -> bool:
        """Begin no more calls, and wait so long for those that are under way.

        Returns:
            Whether all have ended; one that has not may still arrive, and is owed again.
        """
        self._stopping.set()
        ends = time.monotonic() + timeout_s
        started = [thread for thread in self._threads if thread.ident is not None]
        for thread in started:
            thread.join(max(0.0, ends - time.monotonic()))
        return not any(thread.is_alive() for thread in started)

    def _work(self) -> None:
        try:
            while (job := self._next()) is not None:
                try:
                    self._deliver(job)
                except StoreError as error:
                    logger.error("webhook of job %s: what became of it is not stored: %s", job.job_id, error)
        finally:
            self._webhook_queue.close()

    def _next(self) -> Job | None:
        """The next call, as soon as one is due; None at the end. One thread looks, the others wait for their turn."""
        with self._turn:
            while not self._stopping.is_set():
                polls = 1
                try:
                    job = self._webhook_queue.take(self._lease_s)
                    if job is not None:
                        return job
                except StoreError as error:
                    logger.error("webhooks wait: %s", error)
                    polls = _TROUBLE_POLLS
                except Exception:  # a row that cannot be read must not end all calls
                    logger.exception("webhooks: a call that is owed cannot be read; the others go on")
                self._stopping.wait(polls * self._poll_s)
        return None

    def _deliver(self, job: Job) -> None:
        retries = len(self._delays_s)
        try:
            call = self._make(job)
            if call is None:
                raise CallFailedError("the dialect that the job came in has no calls", final=True)
            retries = call.retries
            assert job.webhook is not None  # no other job is owed a call
            post(
                job.webhook,
                call.body,
                call.headers,
                limit_s=call.timeout_s,
                allow_private=self._allow_private,
                tls=self._tls or _trusted(job.webhook),
                lookup=self._lookup,
            )
        except CallFailedError as error:
            self._fail(job, str(error), error.final or job.webhook_attempts > retries)
        except StoreError:
            raise  # owed again when the lease has ended
        except Exception as error:  # it must neither end the thread nor be tried for ever
            logger.exception("webhook of job %s cannot be made", job.job_id)
            self._fail(job, f"it cannot be made: {type(error).__name__}", job.webhook_attempts > retries)
        else:
            self._webhook_queue.delivered(job)
            logger.info("webhook of job %s: taken by %s", job.job_id, httpx.URL(job.webhook).host)

    def _fail(self, job: Job, error: str, final: bool) -> None:
        if final:
            self._webhook_queue.give_up(job, error)
            logger.warning("webhook of job %s: given up after %d tries: %s", job.job_id, job.webhook_attempts, error)
            return
        delay_s = self._delays_s[min(job.webhook_attempts, len(self._delays_s)) - 1] * random.uniform(1.0, 1.2)
        self._webhook_queue.postpone(job, delay_s, error)
        logger.info("webhook of job %s: again in %.0f s: %s", job.job_id, delay_s, error)
