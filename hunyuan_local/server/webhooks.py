"""Webhooks: checks the URL on submission, builds the call when a job ends, and sends it.

A call stays due in the job's row until the receiver answers with 2xx, or the dialect's retries are used up. It is
delivered at least once; receivers recognise a repeat by its id, if the dialect has one. :mod:`.outgoing` makes a
single call safe.
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
from ..outbound.address_check import Lookup, PrivateAddressError, find_addresses
from ..outbound.http_exchange import parse_url, port_of
from ..schema import JobView
from ..wires import novita, wavespeed
from .webhook_call import CallFailedError, post

logger = logging.getLogger(__name__)

MAX_URL_CHARACTERS = 2048
DELAYS_S = (5.0, 30.0, 120.0, 600.0, 3600.0)
_LOOKUP_S = 2.0
_TROUBLE_POLLS = 10
_DIALECTS = {dialect.NAME: dialect for dialect in (wavespeed, novita)}


def check_webhook(url: str, allow_private: bool, *, lookup: Lookup = socket.getaddrinfo) -> None:
    """Check whether a URL may be called when a job ends.

    A host name that cannot be resolved within 2 s is accepted, since it is resolved and checked again for each call.

    Raises:
        InvalidRequestError: the text is not an http(s) URL; it contains a password; or its host resolves to a
            non-public address and ``allow_private`` is false.
    """
    if len(url) > MAX_URL_CHARACTERS:
        raise _refusal(url, f"is longer than {MAX_URL_CHARACTERS} characters")
    try:
        target = parse_url(url)
    except ValueError as error:
        raise _refusal(url, str(error)) from None
    host = target.raw_host.decode("ascii")
    try:
        find_addresses(host, port_of(target), allow_private=allow_private, limit_s=_LOOKUP_S, lookup=lookup)
    except PrivateAddressError as error:
        raise _refusal(url, f"{error}, or start the server with --allow-private-webhooks") from error
    except OSError as error:
        logger.info("webhook to %s: not resolved for now: %s", target.host, error)


def _refusal(url: str, rule: str) -> InvalidRequestError:
    return InvalidRequestError([FieldProblem("webhook", re.sub(r"//[^/]*@", "//***@", url), rule)])


@dataclass(frozen=True)
class WebhookCall:
    """The content of a webhook call, and the dialect's limits: up to ``retries`` further tries after the first."""

    body: bytes
    headers: dict[str, str]
    retries: int
    timeout_s: float


def make_call(
    job: Job, view: Callable[[Job, str], JobView], secret: str, now: Callable[[], float] = time.time
) -> WebhookCall | None:
    """The call for a finished job, in the dialect of its submission; None if that dialect has no webhooks.

    Args:
        view: returns the state of a job, given a base URL.
        secret: ``whsec_...``, for the dialect that signs calls.
    """
    dialect = _DIALECTS.get(job.origin["dialect"])
    if dialect is None:
        return None
    base_url = job.origin["base_url"]
    body = json.dumps(dialect.webhook_to_wire(view(job, base_url), base_url).to_json()).encode()
    # A job that runs again ends again, which is a separate event.
    event_id = f"{job.job_id}-{round((job.finished_at or 0) * 1000)}"
    headers = dialect.webhook_headers(event_id, int(now()), body, secret)
    return WebhookCall(body, headers, dialect.WEBHOOK_RETRIES, dialect.WEBHOOK_TIMEOUT_S)


def _tls_context_for(url: str) -> ssl.SSLContext:
    """The TLS context of a call; an empty one for http URLs.

    Raises:
        CallFailedError: the CA certificates named in the environment cannot be read.
    """
    try:
        return tls_context() if url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    except ConfigError as error:
        raise CallFailedError(str(error)) from error


class WebhookSender:
    """Sends the calls in a webhook queue from background threads; a slow receiver blocks one thread until its timeout.

    Args:
        make: builds the content of a job's call, for each try; None if its dialect has no webhooks.
        allow_private: allow calls to loopback, private and link-local addresses.
        delays_s: seconds before each retry, at least one value; the last one repeats. Adds up to 20 % of jitter.
        at_once: number of concurrent calls.
        poll_s: interval in seconds between two looks into the queue.
        lease_s: time in seconds after which the call of a dead sender is due again; longer than any call takes.
        tls: TLS context; by default, the one that the rest of the package uses.
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
            except ConfigError as error:  # only a warning: a server without webhooks needs no certificates
                logger.warning("webhooks to https:// cannot be called: %s", error)
        self._lookup = lookup
        self._turn = threading.Lock()
        self._stopping = threading.Event()
        # Daemon threads do not delay the end of the process: an interrupted call is due again.
        self._threads = [
            threading.Thread(target=self._work, name=f"webhooks-{number}", daemon=True) for number in range(at_once)
        ]

    def start(self) -> None:
        """Start the threads; call this only once."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 2.0) -> bool:
        """Start no more calls, and wait up to ``timeout_s`` for those in progress.

        Returns:
            Whether all have ended. One that has not may still arrive, and is due again.
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
                    logger.error("webhook of job %s: the outcome could not be stored: %s", job.job_id, error)
        finally:
            self._webhook_queue.close()

    def _next(self) -> Job | None:
        """The next due call; None after :meth:`stop`. One thread polls while the others wait for the lock."""
        with self._turn:
            while not self._stopping.is_set():
                polls = 1
                try:
                    job = self._webhook_queue.take(self._lease_s)
                    if job is not None:
                        return job
                except StoreError as error:
                    logger.error("webhooks are delayed: %s", error)
                    polls = _TROUBLE_POLLS
                except Exception:  # one unreadable row must not stop all calls
                    logger.exception("webhooks: a due call cannot be read; the other calls continue")
                self._stopping.wait(polls * self._poll_s)
        return None

    def _deliver(self, job: Job) -> None:
        retries = len(self._delays_s)
        try:
            call = self._make(job)
            if call is None:
                raise CallFailedError("the dialect of the job has no webhooks", final=True)
            retries = call.retries
            assert job.webhook is not None  # the queue contains only jobs with a webhook
            post(
                job.webhook,
                call.body,
                call.headers,
                limit_s=call.timeout_s,
                allow_private=self._allow_private,
                tls=self._tls or _tls_context_for(job.webhook),
                lookup=self._lookup,
            )
        except CallFailedError as error:
            self._fail(job, str(error), error.final or job.webhook_attempts > retries)
        except StoreError:
            raise  # due again when the lease expires
        except Exception as error:  # must neither end the thread nor be retried forever
            logger.exception("webhook of job %s cannot be built", job.job_id)
            self._fail(job, f"the call cannot be built: {type(error).__name__}", job.webhook_attempts > retries)
        else:
            self._webhook_queue.delivered(job)
            logger.info("webhook of job %s: delivered to %s", job.job_id, httpx.URL(job.webhook).host)

    def _fail(self, job: Job, error: str, final: bool) -> None:
        if final:
            self._webhook_queue.give_up(job, error)
            logger.warning("webhook of job %s: given up after %d tries: %s", job.job_id, job.webhook_attempts, error)
            return
        delay_s = self._delays_s[min(job.webhook_attempts, len(self._delays_s)) - 1] * random.uniform(1.0, 1.2)
        self._webhook_queue.postpone(job, delay_s, error)
        logger.info("webhook of job %s: retry in %.0f s: %s", job.job_id, delay_s, error)
