"""The layers of a component, read from its class: on torch's ``meta`` device, which holds no data."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Any

import torch

from .families.registry import FAMILIES

_KINDS: tuple[tuple[type[torch.nn.Module], str], ...] = (
    (torch.nn.Linear, "linear"),
    (torch.nn.Conv2d, "conv"),
    (torch.nn.Conv3d, "conv"),
    (torch.nn.Embedding, "embedding"),
)


def read_layers(class_name: str, config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every module that directly holds parameters, in the order of definition.

    Args:
        class_name: a class of one of our architectures.
        config: its ``config.json``.

    Returns:
        The fields of :class:`hunyuan_local.planner.layers.Layer` of each.
    """
    classes = {cls.__name__: cls for family in FAMILIES for cls in family.classes.values()}
    cls = classes[class_name]
    with torch.device("meta"):
        # diffusers' classes are built from the configuration itself, those of transformers from its class.
        model = cls.from_config(dict(config)) if hasattr(cls, "load_config") else cls(cls.config_class(**config))
    return [
        _layer(name, module, own)
        for name, module in model.named_modules()
        if (own := dict(module.named_parameters(recurse=False)))
    ]


def main() -> None:
    """Read (class name, config as text) pairs from stdin, and print their layers as JSON in the last line."""
    found = [read_layers(name, json.loads(config)) for name, config in json.load(sys.stdin)]
    print(json.dumps(found))


def _layer(name: str, module: torch.nn.Module, own: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    kind = next((kind for cls, kind in _KINDS if isinstance(module, cls)), "norm")
    main = own.get("weight", next(iter(own.values())))
    shape = tuple(main.shape)
    weight = math.prod(shape)
    return {
        "name": name,
        "kind": kind,
        "weight": weight,
        "out": shape[1] if kind == "embedding" else shape[0] if shape else 1,
        "rest": sum(value.numel() for value in own.values()) - weight,
        "shape": shape,
    }


if __name__ == "__main__":
    main()
