"""Which model of a server makes videos from images."""

from __future__ import annotations

from ..capabilities import image_rule, limits_of
from ..config import load_model_config
from ..weights.cache import find_here
from ..wires.sent_image import SentImage
from .config import ServerConfig


def model_for_images(config: ServerConfig) -> str | None:
    """The model for requests with an image: the server's own, or one of its other models whose weights are here.

    None if there is none. A built-in checkpoint, which knows a few shapes, does not stand in for a large model.
    """
    own = config.model
    if own.takes_image:
        return own.name
    for model in map(load_model_config, config.models):
        if model.takes_image and model.is_built_in <= own.is_built_in and find_here(model) is not None:
            return model.name
    return None


def check_takes_image(config: ServerConfig, sent: SentImage) -> None:
    """Refuse an image before it is fetched, if no model of the server can use it.

    Raises:
        InvalidRequestError: names the field of the image and the models that can.
    """
    if model_for_images(config) is None:
        raise sent.problem(image_rule(config.model.name, limits_of(config.model), has_image=True))
