"""The layers of a component, read from its class once for each configuration and kept on disk.

The classes need torch, which takes seconds to import. A plan whose components are known imports none of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

from ..config import cache_dir
from ..durable import replacing
from ..errors import ConfigError, ModelLoadError

_TIMEOUT_S = 300.0  # for importing torch from a slow disk
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
        ModelLoadError: the class refuses the configuration.
    """
    return _found([(class_name, config)])[0]


def learn(components: Sequence[tuple[str, str]]) -> None:
    """Read the layers of several components at once, so that :func:`layers_of` finds them all on disk."""
    missing = [key for key in components if (file := _file(*key)) is None or not file.is_file()]
    if len(missing) > 1:
        _found(missing)


def _found(components: Sequence[tuple[str, str]]) -> list[tuple[Layer, ...]]:
    """The layers of each component, from disk or from its class; those from classes are kept on disk."""
    files = [_file(*key) for key in components]
    found = [None if file is None else _known(file) for file in files]
    missing = [key for key, known in zip(components, found, strict=True) if known is None]
    read = iter(_read(missing) if missing else [])
    for index, file in enumerate(files):
        if found[index] is None:
            found[index] = layers = next(read)
            if file is not None:
                with contextlib.suppress(OSError):  # read again the next time
                    file.parent.mkdir(parents=True, exist_ok=True)
                    with replacing(file) as partial:
                        partial.write_text(json.dumps([asdict(layer) for layer in layers]))
    return [layers for layers in found if layers is not None]


def _read(components: Sequence[tuple[str, str]]) -> list[tuple[Layer, ...]]:
    """Read layers from the classes: here if torch is imported already, else in a process that ends afterwards.

    A server plans too, and torch would stay in its memory.
    """
    if has_torch():
        from ..pipeline.layers import read_layers

        read = [read_layers(name, json.loads(config)) for name, config in components]
    else:
        done = subprocess.run(
            [sys.executable, "-m", "hunyuan_local.pipeline.layers"], input=json.dumps(list(components)),
            capture_output=True, text=True, timeout=_TIMEOUT_S,
        )  # fmt: skip
        if done.returncode != 0:
            problem = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ModelLoadError(f"the layers of {', '.join(name for name, _ in components)} cannot be read: {problem}")
        read = json.loads(done.stdout.splitlines()[-1])
    return [tuple(_layer(fields) for fields in layers) for layers in read]


def has_torch() -> bool:
    """Whether this process has imported torch."""
    return "torch" in sys.modules


def _layer(fields: dict[str, Any]) -> Layer:
    return Layer(**fields | {"shape": tuple(fields["shape"])})


def _file(class_name: str, config: str) -> Path | None:
    """Where the layers of this class and configuration are kept for the installed versions; None without a cache."""
    text = json.dumps([class_name, json.loads(config), _versions()], sort_keys=True)
    try:
        return cache_dir() / "layers" / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
    except ConfigError:
        return None


@cache
def _versions() -> list[str]:
    """Versions of the libraries that decide the layers; searching for one takes milliseconds."""
    return [importlib.metadata.version(name) for name in _LIBRARIES]


def _known(file: Path) -> tuple[Layer, ...] | None:
    """The layers in a file; None if it is missing or damaged."""
    try:
        return tuple(map(_layer, json.loads(file.read_text())))
    except (OSError, ValueError, TypeError, KeyError):
        return None
