"""Turns the LoRA tensors of one layer, whose keys and shapes are checked, into changes of its weight and bias."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from ...config import LoraConfig
from ...errors import ModelLoadError
from ...weights.lora_fit import FORMS, Fit, Layer, Part
from ...weights.lora_header import Header, fault
from .lora_formulas import Change, Hadamard, Kronecker, LowRank, Whole

# Tencent's code has the shift rows first, then scale; diffusers has scale first.
_HALVES_SWAPPED = "final_layer.adaLN_modulation.1"


@dataclass
class Changes:
    """All changes of a file, by diffusers' name of the layer, and notes for the user."""

    config: LoraConfig
    header: Header
    fit: Fit
    weights: dict[str, Change] = field(default_factory=dict)
    biases: dict[str, Change] = field(default_factory=dict)

    @property
    def layers(self) -> set[str]:
        """Names of all layers that it changes."""
        return self.weights.keys() | self.biases.keys()

    @property
    def notes(self) -> list[str]:
        """Notes for the user."""
        return self.fit.notes

    def fault(self, text: str) -> ModelLoadError:
        """An error about this file."""
        return fault(self.config, text)


@dataclass
class Group:
    """The tensors of a file for one layer, or for several layers that are fused in its format."""

    changes: Changes
    part: Part
    tensors: dict[str, torch.Tensor]
    layers: Mapping[str, Layer]

    def read(self) -> None:
        """Add the changes to ``changes``."""
        change = self._change()
        if change is not None:
            self._divide(change, self.changes.weights)
        for kind in ("up_bias", "diff_bias"):
            if kind in self.tensors:
                factor = change.factor if kind == "up_bias" and change is not None else 1.0
                self._divide(Whole(factor, (self.tensors[kind],)), self.changes.biases)

    def _change(self) -> Change | None:
        """The change of the weight; None if only a bias changes."""
        form, tensors = self.part.form, self.tensors
        if form is None:
            return None
        if form == "a LoRA":
            down, up = tensors["down"].flatten(1), tensors["up"].flatten(1)
            if "mid" in tensors:
                up = up.float() @ tensors["mid"].float()
            return LowRank(self._factor(self.part.rank), (down, up))
        if form == "a LoHa":
            return Hadamard(self._factor(self.part.rank), tuple(tensors[kind] for kind in FORMS[form]))
        if form == "a LoKr":
            halves = [[tensors[kind] for kind in FORMS[form] if kind.startswith(name) and kind in tensors]
                      for name in ("lokr_w1", "lokr_w2")]  # fmt: skip
            return Kronecker(self._lokr_factor(), (*halves[0], *halves[1]), parts=(len(halves[0]), len(halves[1])))
        return Whole(1.0, (tensors["diff"],))

    def _factor(self, rank: int | None) -> float:
        assert rank is not None  # every form that is scaled by alpha / rank has one
        if "alpha" in self.tensors:
            return float(self.tensors["alpha"].item()) / rank
        return self.changes.header.settings.scale((*self.part.names, self.part.spelling), rank)

    def _lokr_factor(self) -> float:
        if self.part.rank is not None:
            return self._factor(self.part.rank)
        rank = self.changes.header.settings.rank
        # LyCORIS writes alpha, but scales by 1 if neither half is factored.
        return 1.0 if "alpha" in self.tensors or rank is None else self._factor(rank)

    def _divide(self, change: Change, into: dict[str, Change]) -> None:
        """Give each layer its rows of the change."""
        rows = [self.layers[name].shape[0] for name in self.part.names]
        parts = change.split(rows, rows_in_order(self.part.spelling, sum(rows)))
        into.update(zip(self.part.names, parts, strict=True))


def rows_in_order(spelling: str, rows: int) -> torch.Tensor | None:
    """The row indices that bring a spelling's rows into diffusers' order; None if the order is the same."""
    if spelling.replace("_", ".") == _HALVES_SWAPPED.replace("_", "."):
        return torch.cat(torch.arange(rows).chunk(2)[::-1])
    return None
