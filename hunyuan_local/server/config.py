"""The configuration of a server."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from ..config import GIB, ModelConfig, load_model_config
from ..errors import ConfigError
from ..schema import RewriteMode

# The form in which browsers send origins; not the schemes of browser extensions and apps in a web view.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
NO_ORIGIN = "null"  # sent by browsers for pages without an address
_OWN_PORTS = {"http": 80, "https": 443}

DAY_S = 24 * 3600.0
MAX_VOXELS = 1280 * 720 * 257  # about twice the longest video that HunyuanVideo was trained for


class ServerConfig(BaseModel):
    """Limits and options of one server; frozen.

    Attributes:
        model: the model that generates the videos.
        profile: the runtime profile of the workers, as for ``--profile``; None lets the plan choose.
        models: names of other models that the page offers; the workers switch between them.
        public_url: the base URL that clients see, without a trailing slash; None uses the URL of each request.
        api_keys: accepted API keys; empty requires none.
        allow_origins: origins of web pages that may call the server from a browser, such as ``https://app.example``;
            ``*`` alone allows every page.
        insecure: without keys, accept calls from any machine and under any host name.
        rewrite: rewriting mode of submissions that do not set one; None and ``off`` keep the prompt.
        can_rewrite: whether submissions may request rewriting; otherwise only the server's ``rewrite`` applies.
        relaxed: accept the full ranges of the local model, not only a dialect's own.
        max_queue: maximum number of waiting jobs; further submissions get 429.
        max_attempts: attempts per job, if its worker dies or a failure is temporary.
        max_voxels: maximum width x height x num_frames of a video.
        max_prompt_characters, max_body_bytes: maximum size of a submission.
        retention_s: age in seconds at which finished jobs and their files are deleted.
        video_url_ttl_s: validity of a video's URL in seconds.
        min_free_bytes: free disk space required to accept or start a job.
        sync_timeout_s: maximum time in seconds that a synchronous submission waits for its video.
        allow_private_webhooks: allow webhooks to loopback, private and link-local addresses.
        allow_private_images: allow images from such addresses.
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
    allow_private_images: bool = False

    @property
    def takes_images(self) -> bool:
        """Whether one of the models makes videos from an image."""
        return self.model.takes_image or any(load_model_config(name).takes_image for name in self.models)


def read_api_keys(file: Path | None = None) -> tuple[str, ...]:
    """The API keys from a file, one per line, and from ``HUNYUAN_LOCAL_API_KEYS``, separated by commas.

    Skips empty lines and lines that begin with #.

    Raises:
        ConfigError: the file is unreadable or has no keys; or a key is not printable ASCII without spaces.
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
            raise ConfigError(f"api_keys_file={str(file)!r}: contains no keys; write one per line, or omit the option")
        keys += found
    keys = [key for key in map(str.strip, keys) if key]
    for number, key in enumerate(keys, start=1):
        if not key.isascii() or not key.isprintable() or " " in key:
            # Do not show the key: others may read the terminal or the log.
            raise ConfigError(f"api_keys: key {number} contains a space, or a character that is not printable ASCII")
    return tuple(dict.fromkeys(keys))


def check_binding(host: str, api_keys: tuple[str, ...], insecure: bool) -> None:
    """Refuse to listen on an address that other machines can reach without keys, unless ``insecure``.

    Raises:
        ConfigError: names the host.
    """
    if not (api_keys or insecure or _is_loopback(host)):
        raise ConfigError(
            f"host={host!r}: other machines could reach the server, and no API keys are set; give --api-keys-file or "
            "HUNYUAN_LOCAL_API_KEYS, keep --host 127.0.0.1, or add --insecure"
        )


def check_origins(origins: tuple[str, ...]) -> None:
    """Refuse values that no browser sends as an origin, and that would never match.

    Raises:
        ConfigError: names the value and the origin that was probably meant.
    """
    for origin in origins:
        if origin == "*" and len(origins) > 1:
            raise ConfigError("allow_origin='*': already allows every page; give it alone, or omit it")
        if origin == "*" or (_ORIGIN.fullmatch(origin) and _as_browsers_send(origin) == origin):
            continue
        if origin == NO_ORIGIN:
            raise ConfigError(
                "allow_origin='null': browsers send it for every local file and sandboxed frame; serve the page from "
                "an address and give that, such as http://localhost:3000, or give * alone to allow every page"
            )
        meant = _as_browsers_send(origin)
        remedy = f"give {meant}" if meant else "give one such as https://app.example or http://localhost:3000"
        raise ConfigError(
            f"allow_origin={origin!r}: is not an origin as browsers send it: scheme://host or scheme://host:port in "
            f"lower case, without a path or the scheme's default port; {remedy}, or * alone to allow every page"
        )


def _as_browsers_send(text: str) -> str | None:
    """The origin of pages at an address, in the form that browsers send; None if the text is not an address."""
    try:
        url = urlsplit(text.strip() if "://" in text else f"https://{text.strip()}")
        name = (url.hostname or "").encode("idna").decode("ascii")
        port = "" if url.port in (None, _OWN_PORTS.get(url.scheme)) else f":{url.port}"
    except ValueError:  # includes UnicodeError
        return None
    origin = f"{url.scheme}://{f'[{name}]' if ':' in name else name}{port}"
    return origin if _ORIGIN.fullmatch(origin) else None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
