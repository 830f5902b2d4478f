"""Checks whether the server answers at its public address, with which links to videos start."""

from __future__ import annotations

import threading
from collections.abc import Callable

import httpx

from ..config.network import advice, http_client
from ..errors import ConfigError, first_line

_LIMIT_S = 5.0
_ALIVE = {"status": "alive"}


def check_in_background(public_url: str, say: Callable[[str], None]) -> threading.Thread:
    """Print a note if the address does not answer; only a note, since another machine may be able to reach it."""

    def check() -> None:
        if why := why_not_reached(public_url):
            say(
                f"note: --public-url {public_url}: {why}; links to videos start with this address, and clients that "
                "cannot reach it retry for minutes; correct it, or ignore this if clients reach it from elsewhere"
            )

    thread = threading.Thread(target=check, name="public-url", daemon=True)
    thread.start()
    return thread


def why_not_reached(public_url: str) -> str:
    """Why this server does not answer at its public address, seen from this machine; empty if it does."""
    url = f"{public_url}/healthz"
    try:
        with http_client(url, timeout=_LIMIT_S) as client:
            answer = client.get(url)
        is_ours = answer.status_code == 200 and answer.json() == _ALIVE
    except ConfigError as error:
        return str(error)
    except httpx.HTTPError as error:
        return f"cannot be reached from this machine ({first_line(error)}{advice(url, error)})"
    except ValueError:
        is_ours = False
    return "" if is_ours else f"does not lead to this server (it answers HTTP {answer.status_code} to /healthz)"
