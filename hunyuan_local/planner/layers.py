"""The layers of a component, read from its class once for each configuration and kept on disk.

The classes need torch, which takes seconds to import. A plan whose components are known imports none of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from ..config import cache_dir
from ..durable import replacing
from ..errors import ConfigError

_LIBRARIES = ("hunyuan-local", "torch", "diffusers", "transformers")


@dataclass(frozen=True)
class Layer:
    """One module with parameters.

    Attributes:
        name: its path in the component, such as ``transformer_blocks.0.attn.to_q``.
        kind: only ``linear`` layers are quantized; ``norm`` is every layer that is none of the others.
        weight: number of elements of its weight matrix or kernel.
        out: its output features or channels; for a linear layer, the rows of the weight.
        rest: number of elements of its other parameters, mostly the bias.
        shape: shape of the weight.
    """

    name: str
    kind: Literal["linear", "conv", "norm", "embedding"]
    weight: int
    out: int
    rest: int = 0
    shape: tuple[int, ...] = ()

    @property
    def parameters(self) -> int:
        """Number of elements of all its parameters."""
        return self.weight + self.rest


@lru_cache(maxsize=64)
def layers_of(class_name: str, config: str) -> tuple[Layer, ...]:
    """Every module with parameters, in the order of its definition.

    Args:
        class_name: class of the component in diffusers or transformers.
        config: its ``config.json``.

    Raises:
        Exception: the class refuses the configuration.
    """
    file = _file(class_name, config)
    if file is not None and (known := _known(file)) is not None:
        return known
    from ..pipeline.layers import read_layers

    found = tuple(Layer(**fields) for fields in read_layers(class_name, json.loads(config)))
    if file is not None:
        with contextlib.suppress(OSError):  # read again the next time
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file) as partial:
                partial.write_text(json.dumps([asdict(layer) for layer in found]))
    return found


def _file(class_name: str, config: str) -> Path | None:
    """Where the layers of this class and configuration are kept for the installed versions; None without a cache."""
    versions = [importlib.metadata.version(name) for name in _LIBRARIES]
    text = json.dumps([class_name, json.loads(config), versions], sort_keys=True)
    try:
        return cache_dir() / "layers" / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
    except ConfigError:
        return None


def _known(file: Path) -> tuple[Layer, ...] | None:
    """The layers in a file; None if it is missing or damaged."""
    try:
        return tuple(Layer(**fields | {"shape": tuple(fields["shape"])}) for fields in json.loads(file.read_text()))
    except (OSError, ValueError, TypeError, KeyError):
        return None
