"""The layers of a component, read from its class: on torch's ``meta`` device, which holds no data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from .families.registry import family_of

_KINDS: tuple[tuple[type[torch.nn.Module], str], ...] = (
    (torch.nn.Linear, "linear"),
    (torch.nn.Conv2d, "conv"),
    (torch.nn.Conv3d, "conv"),
    (torch.nn.Embedding, "embedding"),
)


def read_layers(component: str, config: Mapping[str, Any], transformer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every module with parameters of its own, in the order of its definition.

    Args:
        component: its name in a checkpoint, such as ``vae``.
        config: its ``config.json``.
        transformer: the transformer's ``config.json``, which decides the architecture.

    Returns:
        The fields of :class:`hunyuan_local.planner.layers.Layer` of each.

    Raises:
        ValueError: the transformer is of an unknown architecture.
        Exception: the class refuses the configuration.
    """
    family = family_of(transformer)
    if family is None:
        raise ValueError(f"image_condition_type={transformer['image_condition_type']!r} is unknown")
    cls = family.classes[component]
    with torch.device("meta"):
        if hasattr(cls, "load_config"):  # a class of diffusers
            model = cls.from_config(dict(config))
        else:
            model = cls(cls.config_class(**config))
    return [
        _layer(name, module, own)
        for name, module in model.named_modules()
        if (own := {key: value for key, value in module.named_parameters(recurse=False) if value is not None})
    ]


def _layer(name: str, module: torch.nn.Module, own: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    kind = next((kind for cls, kind in _KINDS if isinstance(module, cls)), "norm")
    main = own.get("weight", next(iter(own.values())))
    shape = list(main.shape)
    out = shape[1] if kind == "embedding" else shape[0] if shape else 1
    weight = math.prod(shape)
    return {
        "name": name,
        "kind": kind,
        "shape": shape,
        "weight": weight,
        "out": out,
        "rest": sum(value.numel() for value in own.values()) - weight,
    }
