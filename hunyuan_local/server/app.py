"""The FastAPI app: routes and middleware, in order.

Starts nothing: workers, webhooks and housekeeping are started by :mod:`.process`.
"""

from __future__ import annotations

import threading
from functools import cache
from importlib.metadata import version

from fastapi import FastAPI

from ..capabilities import image_rule, limits_of
from ..images import MAX_BYTES
from ..jobs.folder import DataFolder
from ..jobs.store import JobStore
from ..wires import openai as openai_wire
from ..wires import wavespeed as wavespeed_wire
from . import documentation, error_answers
from .auth import PAGE_UPLOAD_PATH, Auth, local_hosts
from .config import ServerConfig
from .cross_origin import CrossOrigin
from .metrics import Metrics
from .middleware import BodyLimit, CatchAll, HeadOfGet, LeadingSlashes
from .routes import novita, openai, plain, wavespeed
from .service import VideoService
from .signed_links import UPLOAD_PATH

_WITH_IMAGE = (wavespeed_wire.IMAGE_SUBMIT_PATH, openai_wire.SUBMIT_PATH)  # submissions that may contain an image
_ABOUT = (
    "Text-to-video on your own machine, in the formats of WaveSpeed, Novita and OpenAI. "
    "A job has the same id in all of them. Every GET route also answers HEAD."
)


def create_app(config: ServerConfig, folder: DataFolder, store: JobStore, webhook_secret: str | None = None) -> FastAPI:
    """Create the server's app.

    ``app.state`` has ``service``, ``metrics`` and the event ``stopping``; once it is set, calls that wait for a video
    return immediately.

    Args:
        webhook_secret: ``whsec_...``; defaults to the secret in the data folder.

    Raises:
        ConfigError: a secret cannot be stored in the data folder.
    """
    # The page at /docs loads its scripts from cdn.jsdelivr.net; /openapi.json needs no other host.
    app = FastAPI(
        title="hunyuan-local",
        version=_version(),
        description=_ABOUT,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        redirect_slashes=False,  # a redirected POST loses its body with some clients
    )
    secret = webhook_secret or f"whsec_{folder.secret('webhook')}"
    app.state.service = VideoService(config, folder, store, secret)
    app.state.metrics = Metrics(folder, store)
    app.state.stopping = threading.Event()
    for module in (wavespeed, novita, openai, plain):
        app.include_router(module.router)
    error_answers.install(app)
    documentation.install(app, config)
    # The middleware added last runs first.
    app.add_middleware(
        BodyLimit,
        limit=config.max_body_bytes,
        larger=_limits_with_images(config) if config.takes_images else {},
        reason=lambda path: _why_no_image(config, path),
    )
    hosts = None if config.insecure else local_hosts(config.public_url)
    app.add_middleware(Auth, keys=config.api_keys, hosts=hosts, origins=config.allow_origins)
    app.add_middleware(HeadOfGet)
    app.add_middleware(CatchAll)
    app.add_middleware(CrossOrigin, origins=config.allow_origins)
    app.add_middleware(LeadingSlashes)
    return app


@cache
def _version() -> str:
    """The version of this package; searching for it takes a millisecond."""
    return version("hunyuan-local")


def _limits_with_images(config: ServerConfig) -> dict[str, int]:
    """The limits in bytes of bodies that may contain an image, by the start of their path."""
    in_base64 = config.max_body_bytes + 4 * -(-MAX_BYTES // 3)
    return {
        UPLOAD_PATH.partition("{")[0]: MAX_BYTES,
        PAGE_UPLOAD_PATH: MAX_BYTES,
        **dict.fromkeys(_WITH_IMAGE, in_base64),
    }


def _why_no_image(config: ServerConfig, path: str) -> str:
    """For a body that is too large: why it may not contain an image, at a path where other servers accept one."""
    if config.takes_images or not path.startswith(_WITH_IMAGE):
        return ""
    rule = image_rule(config.model.name, limits_of(config.model), has_image=True)
    return f"only images need more, and {rule}"
