"""The LoRA tensors of one layer: checks them against the layer and turns them into changes of its weight and bias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from ...config import LoraConfig
from ...errors import ModelLoadError
from ...weights.lora_header import Header, fault
from .lora_formulas import Change, Hadamard, Kronecker, LowRank, Whole

# Tencent's code has the shift rows first, then scale; diffusers has scale first.
_HALVES_SWAPPED = "final_layer.adaLN_modulation.1"
# The forms of a weight's change and their tensors; a file may have only one form per weight.
_FORMS = {
    "a LoRA": ("down", "up", "mid", "up_bias"),
    "a LoHa": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    "a LoKr": ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b"),
    "a whole difference": ("diff",),
}


@dataclass(frozen=True)
class Layer:
    """What a change must fit: the shape of a weight in full precision, and whether there is a bias."""

    shape: tuple[int, ...]
    has_bias: bool

    @property
    def columns(self) -> int:
        """Columns of the weight as a matrix."""
        return int(torch.Size(self.shape[1:]).numel())


@dataclass
class Changes:
    """All changes of a file, by diffusers' name of the layer; ``sources`` maps each change to its key."""

    config: LoraConfig
    header: Header
    weights: dict[str, Change] = field(default_factory=dict)
    biases: dict[str, Change] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    sources: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def layers(self) -> set[str]:
        """Names of all layers that it changes."""
        return self.weights.keys() | self.biases.keys()

    def fault(self, text: str) -> ModelLoadError:
        """An error about this file."""
        return fault(self.config, text)


@dataclass
class Group:
    """The tensors of a file for one layer, or for several layers that are fused in its format."""

    changes: Changes
    spelling: str
    keys: dict[str, str]
    tensors: dict[str, torch.Tensor]
    names: Sequence[str]
    layers: Mapping[str, Layer]

    def read(self) -> None:
        """Check the tensors and add their change to ``changes``."""
        for kind, tensor in self.tensors.items():
            self._check_numbers(kind, tensor)
        forms = {form: [kind for kind in kinds if kind in self.tensors] for form, kinds in _FORMS.items()}
        forms = {form: kinds for form, kinds in forms.items() if kinds}
        if len(forms) > 1:
            (one, first), (other, second), *_ = forms.items()
            raise self._fault(f"{self.keys[first[0]]} and {self.keys[second[0]]} change one layer twice, as {one} and "
                              f"as {other}; use a file that changes it once")  # fmt: skip
        kinds = next(iter(forms.values()), [])
        if "alpha" in self.keys and (not kinds or kinds == ["diff"]):
            raise self._fault(f"{self.keys['alpha']} comes without the factors that it scales; the file is damaged")
        if "down" in kinds or "up" in kinds or "mid" in kinds:
            change: Change | None = self._lora()
        elif "up_bias" in kinds:
            raise self._fault(f"{self.keys['up_bias']} comes without its factors; the file is damaged")
        elif kinds and kinds[0].startswith("hada"):
            change = self._loha()
        elif kinds and kinds[0].startswith("lokr"):
            change = self._lokr()
        elif kinds:
            self._check_shape("diff", self.shape)
            change = Whole(1.0, (self.tensors["diff"],))
        else:
            change = None
        if change is not None:
            self._divide(change, "weight", self.keys[kinds[0]])
        self._biases(change)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight; the fused layers' rows are stacked."""
        shapes = [self.layers[name].shape for name in self.names]
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])

    @property
    def columns(self) -> int:
        return self.layers[self.names[0]].columns

    def _fault(self, text: str) -> ModelLoadError:
        return self.changes.fault(text)

    def _check_numbers(self, kind: str, tensor: torch.Tensor) -> None:
        key = self.keys[kind]
        if kind == "alpha":
            if tensor.numel() != 1 or tensor.is_complex() or tensor.dtype == torch.bool:
                raise self._fault(f"{key} has the shape {list(tensor.shape)} and {tensor.dtype}; it must be one number")
        elif not tensor.is_floating_point():
            raise self._fault(f"{key} has values of type {tensor.dtype}, which a LoRA cannot have; use another file")
        if not torch.isfinite(tensor.float()).all():
            raise self._fault(f"{key} has values that are NaN or infinite; the file is damaged")

    def _check_shape(self, kind: str, wanted: tuple[int, ...]) -> torch.Tensor:
        tensor = self.tensors[kind]
        if tuple(tensor.shape) != wanted:
            text = f"{self.keys[kind]} has the shape {list(tensor.shape)}; this transformer needs {list(wanted)}"
            if "x_embedder.proj" in self.names and tensor.ndim == 5 and tensor.shape[1] in (32, 33):
                raise self._fault(f"{text}: {tensor.shape[1]} channels belong to an image-to-video model; use a LoRA "
                                  "made for text to video")  # fmt: skip
            raise self._fault(f"{text}; the LoRA was made for another model")
        return tensor

    def _need(self, *kinds: str) -> None:
        """Reject a factor without its counterparts, and matrix factors for a vector."""
        there = [kind for kind in kinds if kind in self.tensors]
        if len(self.shape) == 1:
            raise self._fault(f"{self.keys[there[0]]} is a factor of a matrix, but {self.names[0]} is a vector; the "
                              "LoRA was made for another model")  # fmt: skip
        if there and len(there) < len(kinds):
            raise self._fault(f"{self.keys[there[0]]} comes without its other half; the file is damaged")

    def _rank(self, kind: str, axis: int = 0) -> int:
        """The rank, read from one factor; the others are checked against it."""
        tensor = self.tensors[kind]
        if tensor.ndim == 0 or tensor.shape[axis if tensor.ndim > axis else 0] == 0:
            raise self._fault(f"{self.keys[kind]} has the shape {list(tensor.shape)}, a factor of rank 0; the file is "
                              "damaged")  # fmt: skip
        return tensor.shape[axis if tensor.ndim > axis else 0]

    def _factor(self, rank: int) -> float:
        if "alpha" in self.tensors:
            return float(self.tensors["alpha"].item()) / rank
        return self.changes.header.settings.scale((*self.names, self.spelling), rank)

    def _lora(self) -> Change:
        if "mid" in self.tensors and "down" not in self.tensors and "up" not in self.tensors:
            raise self._fault(f"{self.keys['mid']} comes without its other factors; the file is damaged")
        self._need("down", "up")
        rank, (rows, *rest) = self._rank("down"), self.shape
        down = self._check_shape("down", (rank, *rest))
        up = self._check_shape("up", (rows, rank, *(1 for _ in rest[1:]))).flatten(1)
        if "mid" in self.tensors:
            up = up.float() @ self._check_shape("mid", (rank, rank)).float()
        return LowRank(self._factor(rank), (down.flatten(1), up))

    def _loha(self) -> Change:
        kinds = _FORMS["a LoHa"]
        self._need(*kinds)
        rank, rows = self._rank("hada_w1_b"), self.shape[0]
        wanted = ((rows, rank), (rank, self.columns)) * 2
        return Hadamard(
            self._factor(rank), tuple(self._check_shape(kind, shape) for kind, shape in zip(kinds, wanted, strict=True))
        )

    def _lokr(self) -> Change:
        ranks: dict[str, int] = {}
        halves = [self._half_of_lokr(name, ranks) for name in ("lokr_w1", "lokr_w2")]
        if len(set(ranks.values())) > 1:
            one, other = (self.keys[f"{name}_b"] for name in ranks)
            raise self._fault(f"{one} and {other} have different ranks, so the divisor of alpha is not defined")
        (m, *_, k), (p, *_, q) = ((part[0].shape[0], part[-1].shape[-1]) for part in halves)
        if (m * p, k * q) != (self.shape[0], self.columns) or len(self.shape) != 2:
            key = next(self.keys[kind] for kind in _FORMS["a LoKr"] if kind in self.keys)
            raise self._fault(f"{key} and its other factors give a matrix of the shape {[m * p, k * q]}; this "
                              f"transformer needs {list(self.shape)}; the LoRA was made for another model")  # fmt: skip
        if ranks:
            factor = self._factor(next(iter(ranks.values())))
        elif "alpha" in self.tensors:  # LyCORIS writes alpha, but scales by 1 if neither half is factored
            factor = 1.0
        else:
            settings = self.changes.header.settings
            factor = 1.0 if settings.rank is None else self._factor(settings.rank)
        return Kronecker(factor, (*halves[0], *halves[1]), parts=(len(halves[0]), len(halves[1])))

    def _half_of_lokr(self, name: str, ranks: dict[str, int]) -> tuple[torch.Tensor, ...]:
        """One half of the Kronecker product: a matrix, or two factors; records their rank in ``ranks``."""
        a, b = f"{name}_a", f"{name}_b"
        self._need(a, b) if a in self.tensors or b in self.tensors else self._need(name)
        if name in self.tensors and a in self.tensors:
            raise self._fault(f"{self.keys[name]} and {self.keys[a]} duplicate each other for one layer; use a file "
                              "without duplicates")  # fmt: skip
        kinds = (a, b) if a in self.tensors else (name,)
        if kinds[0] not in self.tensors:
            other = next(key for kind, key in self.keys.items() if kind.startswith("lokr"))
            raise self._fault(f"{other} comes without its other half; the file is damaged")
        for kind in kinds:
            if self.tensors[kind].ndim != 2 or 0 in self.tensors[kind].shape:
                raise self._fault(f"{self.keys[kind]} has the shape {list(self.tensors[kind].shape)}; it must be a "
                                  "matrix; the LoRA was made for another model")  # fmt: skip
        if len(kinds) == 2:
            ranks[name] = self._rank(b)
            self._check_shape(a, (self.tensors[a].shape[0], ranks[name]))
        return tuple(self.tensors[kind] for kind in kinds)

    def _biases(self, change: Change | None) -> None:
        for kind in ("up_bias", "diff_bias"):
            if kind not in self.tensors:
                continue
            if not all(self.layers[name].has_bias for name in self.names):
                raise self._fault(f"{self.keys[kind]} changes a bias, but {self.names[0]} has none; the LoRA was made "
                                  "for another model")  # fmt: skip
            self._check_shape(kind, self.shape[:1])
            factor = change.factor if kind == "up_bias" and change is not None else 1.0
            self._divide(Whole(factor, (self.tensors[kind],)), "bias", self.keys[kind])

    def _divide(self, change: Change, of: Literal["weight", "bias"], key: str) -> None:
        """Give each layer its rows of the change; rejects a layer that already has a change."""
        rows = [self.layers[name].shape[0] for name in self.names]
        into = self.changes.weights if of == "weight" else self.changes.biases
        for name, part in zip(self.names, change.split(rows, rows_in_order(self.spelling, sum(rows))), strict=True):
            if name in into:
                other = self.changes.sources[name, of]
                raise self._fault(f"{other} and {key} both change {name}; use a file that changes a layer once")
            into[name] = part
            self.changes.sources[name, of] = key


def rows_in_order(spelling: str, rows: int) -> torch.Tensor | None:
    """The row indices that bring a spelling's rows into diffusers' order; None if the order is the same."""
    if spelling.replace("_", ".") == _HALVES_SWAPPED.replace("_", "."):
        return torch.cat(torch.arange(rows).chunk(2)[::-1])
    return None
