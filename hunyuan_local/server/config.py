"""What a server is told at its start."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from ..config import GIB, ModelConfig
from ..errors import ConfigError
from ..schema import RewriteMode

# As browsers write it; the schemes of extensions and of apps in a browser's shell are not those of the web.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
NO_ORIGIN = "null"  # as browsers write it for pages of no address
_OWN_PORTS = {"http": 80, "https": 443}

DAY_S = 24 * 3600.0
MAX_VOXELS = 1280 * 720 * 257  # twice the longest video that HunyuanVideo was made for


class ServerConfig(BaseModel):
    """Limits and habits of one server; frozen.

    Attributes:
        model: what its jobs are made with.
        profile: what its workers run in, as ``--profile`` names it; None is the plan's choice.
        models: other models that its page may ask for, by their names; its workers then change between them.
        public_url: the address that clients see, without a trailing slash; None takes each request's own.
        api_keys: one of these must be shown; empty asks for none.
        allow_origins: of web pages that browsers may let call the server, such as ``https://app.example``; ``*`` alone
            is every page.
        insecure: answer whoever asks, without keys, and under whatever host name.
        rewrite: what becomes of prompts whose submission does not say; None and ``off`` leave them.
        can_rewrite: submissions may ask for it; else only the server's own ``rewrite`` is done.
        relaxed: take what the local model can do, not only a dialect's own ranges.
        max_queue: so many jobs may wait; more are answered with 429.
        max_attempts: a job whose worker dies, or fails for what may pass, is run so many times.
        max_voxels: width x height x frames of one video, at most.
        max_prompt_characters, max_body_bytes: larger submissions are refused.
        retention_s: finished jobs are deleted with their files after so many seconds.
        video_url_ttl_s: a video's address works for so many seconds.
        min_free_bytes: with less free on the disk no job is taken or begun.
        sync_timeout_s: a submission that waits for its video is answered after so many seconds at the latest.
        allow_private_webhooks: webhooks may lead to loopback, private and link-local addresses.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelConfig
    profile: str | None = None
    models: tuple[str, ...] = ()
    public_url: str | None = None
    api_keys: tuple[str, ...] = ()
    allow_origins: tuple[str, ...] = ()
    insecure: bool = False
    rewrite: RewriteMode | None = None
    can_rewrite: bool = True
    relaxed: bool = False
    max_queue: int = 100
    max_attempts: int = 3
    max_voxels: int = MAX_VOXELS
    max_prompt_characters: int = 5000
    max_body_bytes: int = 1024**2
    retention_s: float = 7 * DAY_S
    video_url_ttl_s: int = 3600
    min_free_bytes: int = 2 * GIB
    sync_timeout_s: float = 600.0
    allow_private_webhooks: bool = False


def read_api_keys(file: Path | None = None) -> tuple[str, ...]:
    """The keys in a file, one a line, and in ``HUNYUAN_LOCAL_API_KEYS``, separated by commas.

    Empty lines and lines that begin with # are left out.

    Raises:
        ConfigError: the file cannot be read, or holds no key; a key is not printable ASCII without spaces.
    """
    keys = os.environ.get("HUNYUAN_LOCAL_API_KEYS", "").split(",")
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            remedy = "; save it as text in UTF-8" if isinstance(error, UnicodeDecodeError) else ""
            raise ConfigError(f"api_keys_file={str(file)!r}: cannot be read: {error}{remedy}") from error
        found = [line for line in map(str.strip, lines) if line and not line.startswith("#")]
        if not found:
            raise ConfigError(f"api_keys_file={str(file)!r}: holds no key; write one a line, or leave the option out")
        keys += found
    keys = [key for key in map(str.strip, keys) if key]
    for number, key in enumerate(keys, start=1):
        if not key.isascii() or not key.isprintable() or " " in key:
            # The key itself is not shown: terminals and logs are read by others.
            raise ConfigError(f"api_keys: number {number} has a space or other characters than printable ASCII")
    return tuple(dict.fromkeys(keys))


def check_binding(host: str, api_keys: tuple[str, ...], insecure: bool) -> None:
    """Refuse to listen beyond this machine without keys, unless ``insecure``.

    Raises:
        ConfigError: naming the host.
    """
    if not (api_keys or insecure or _is_loopback(host)):
        raise ConfigError(
            f"host={host!r}: others could reach the server, and no keys are set; give --api-keys-file or "
            "HUNYUAN_LOCAL_API_KEYS, keep --host 127.0.0.1, or add --insecure"
        )


def check_origins(origins: tuple[str, ...]) -> None:
    """Refuse what no browser would ever send as the origin of a page: it would be compared in vain.

    Raises:
        ConfigError: naming it, and the origin that is probably meant.
    """
    for origin in origins:
        if origin == "*" and len(origins) > 1:
            raise ConfigError("allow_origin='*': allows every page already; give it alone, or leave it out")
        if origin == "*" or (_ORIGIN.fullmatch(origin) and _as_browsers_send(origin) == origin):
            continue
        if origin == NO_ORIGIN:
            raise ConfigError(
                "allow_origin='null': is sent for every local file and every sandboxed frame; serve the page from an "
                "address and give that, such as http://localhost:3000, or give * alone for every page"
            )
        meant = _as_browsers_send(origin)
        remedy = f"give {meant}" if meant else "give one such as https://app.example or http://localhost:3000"
        raise ConfigError(
            f"allow_origin={origin!r}: is not an origin as browsers send it, which is scheme://host or "
            f"scheme://host:port in small letters, without a path or the scheme's own port; {remedy}, or * alone for "
            "every page"
        )


def _as_browsers_send(text: str) -> str | None:
    """The origin of a page at an address; None where that cannot be said."""
    try:
        url = urlsplit(text.strip() if "://" in text else f"https://{text.strip()}")
        name = (url.hostname or "").encode("idna").decode("ascii")
        port = "" if url.port in (None, _OWN_PORTS.get(url.scheme)) else f":{url.port}"
    except ValueError:  # UnicodeError is one
        return None
    origin = f"{url.scheme}://{f'[{name}]' if ':' in name else name}{port}"
    return origin if _ORIGIN.fullmatch(origin) else None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
