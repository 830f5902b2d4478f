"""Checks the keys, shapes and types of a LoRA file against the layers of a transformer, and accounts for every key.

Needs only the header, no torch: a LoRA for another model is refused before any weight is read. An unknown key that
refers to the transformer is an error, because adding only a part of a LoRA gives a different video. Keys for text
encoders, found in LoRAs for several programs, are ignored with a note.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NoReturn

from ..config import LoraConfig
from .architecture import owner_of_channels
from .layer_names import is_like_flux, spellings
from .lora_header import Header, fault
from .lora_keys import find_layer, kind_of, names_transformer, why_not_added

# The forms of a weight's change and their tensors; a file may have only one form per weight.
Form = Literal["a LoRA", "a LoHa", "a LoKr", "a whole difference"]
FORMS: dict[Form, tuple[str, ...]] = {
    "a LoRA": ("down", "up", "mid", "up_bias"),
    "a LoHa": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    "a LoKr": ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b"),
    "a whole difference": ("diff",),
}
_OTHER_MODEL = "the LoRA was made for another model"
_TYPES = {"BOOL": "bool", "U": "uint", "I": "int", "C": "complex"}  # of safetensors that are not real numbers


@dataclass(frozen=True)
class Layer:
    """What a change must fit: the shape of a weight in full precision, and whether there is a bias."""

    shape: tuple[int, ...]
    has_bias: bool

    @property
    def columns(self) -> int:
        """Columns of the weight as a matrix."""
        return math.prod(self.shape[1:])


@dataclass(frozen=True)
class Part:
    """The keys of a file for one layer, or for several layers that are fused in its format.

    Attributes:
        spelling: the file's name of the layer.
        keys: by kind of tensor; see :func:`.lora_keys.kind_of`.
        names: diffusers' names of the layers, in the order of their rows.
        form: None if only a bias changes.
        rank: the divisor of alpha; None if the form has none.
    """

    spelling: str
    keys: dict[str, str]
    names: tuple[str, ...]
    form: Form | None
    rank: int | None


@dataclass
class Fit:
    """The parts of a file, and notes for the user; ``sources`` maps (layer, weight or bias) to the changing key."""

    parts: list[Part] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sources: dict[tuple[str, str], str] = field(default_factory=dict)


def check_fit(config: LoraConfig, header: Header, layers: Mapping[str, Layer]) -> Fit:
    """Check a file against a transformer.

    Args:
        config: the LoRA's path and scale.
        header: the file's header.
        layers: the transformer's layers, by diffusers' names.

    Raises:
        ModelLoadError: a key is unknown, has a wrong shape or type, or lacks its counterpart; or nothing changes this
            transformer. The message begins with ``lora=`` and names the key.
    """
    known = spellings(layers)
    fit = Fit(notes=list(header.notes))
    for spelling, keys in _grouped(config, header, known, fit.notes).items():
        fit.parts.append(_Check(config, header, fit, spelling, keys, known[spelling], layers).part())
    if is_like_flux({name for name, _ in fit.sources}, layers):
        fit.notes.append(
            f"lora={config.path!r}: changes every double block but the last, every single block but the last two, and "
            "nothing of the token refiner: these are the blocks of FLUX.1, whose layers have the same names and "
            "shapes; if it was made for FLUX.1, it gives wrong videos"
        )
    return fit


def _grouped(
    config: LoraConfig, header: Header, known: Mapping[str, Sequence[str]], notes: list[str]
) -> dict[str, dict[str, str]]:
    """Group the keys by the file's spelling of a layer, then by kind; rejects unknown keys."""
    groups: dict[str, dict[str, str]] = {}
    adapters: dict[str, str] = {}
    strange: list[str] = []
    unused: list[str] = []
    for key in header.shapes:
        if (found := find_layer(key, known)) is None:
            (strange if names_transformer(key) else unused).append(key)
            continue
        if (kind := kind_of(found[1])) is None:
            raise fault(config, f"{key} {why_not_added(found[1])}")
        keys = groups.setdefault(found[0], {})
        if kind[0] in keys:
            raise fault(config, _duplicates(keys[kind[0]], key))
        keys[kind[0]] = key
        if kind[1] is not None:
            adapters.setdefault(kind[1], key)
    if len(adapters) > 1:
        one, other, *_ = adapters.values()
        raise fault(
            config,
            f"{one} and {other} belong to different adapters ({', '.join(sorted(adapters))}); use a file with one "
            "adapter",
        )
    _check_used(config, header, bool(groups), strange, unused)
    if unused:
        notes.append(
            f"{len(unused)} of the {len(header.shapes)} keys of {header.file.name} are not used, such as "
            f"{', '.join(unused[:3])}"
        )
    return groups


def _check_used(
    config: LoraConfig, header: Header, is_used: bool, strange: Sequence[str], unused: Sequence[str]
) -> None:
    count, name = len(header.shapes), header.file.name
    if not is_used:
        raise fault(
            config,
            f"none of the {count} keys of {name} belongs to a layer of this transformer (found: "
            f"{', '.join([*strange, *unused][:3])}; "
            "expected keys such as transformer.transformer_blocks.0.attn.to_q.lora_A.weight, "
            "diffusion_model.double_blocks.0.img_attn.qkv.lora_down.weight or "
            "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight); use a LoRA made for HunyuanVideo",
        )
    if strange:
        raise fault(
            config,
            f"{len(strange)} of the {count} keys of {name}, such as {strange[0]}, name no layer of this transformer; "
            f"{_OTHER_MODEL}",
        )


@dataclass
class _Check:
    """Checks the keys for one spelling of a layer."""

    config: LoraConfig
    header: Header
    fit: Fit
    spelling: str
    keys: dict[str, str]
    names: Sequence[str]
    layers: Mapping[str, Layer]

    def part(self) -> Part:
        """Check everything and record which layers change."""
        for kind in self.keys:
            self._check_type(kind)
        form, kinds = self._form()
        rank = None
        if form == "a LoRA":
            rank = self._lora()
        elif form == "a LoHa":
            rank = self._loha()
        elif form == "a LoKr":
            rank = self._lokr()
        elif form == "a whole difference":
            self._check_shape("diff", self._shape)
        if form is not None:
            self._record("weight", self.keys[kinds[0]])
        self._biases()
        return Part(self.spelling, self.keys, tuple(self.names), form, rank)

    @property
    def _shape(self) -> tuple[int, ...]:
        """Shape of the weight; the fused layers' rows are stacked."""
        shapes = [self.layers[name].shape for name in self.names]
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])

    def _shape_of(self, kind: str) -> tuple[int, ...]:
        return self.header.shapes[self.keys[kind]]

    def _refuse(self, text: str) -> NoReturn:
        raise fault(self.config, text)

    def _check_type(self, kind: str) -> None:
        key, shape, dtype = self.keys[kind], self._shape_of(kind), self.header.dtypes[self.keys[kind]]
        letters = dtype.rstrip("0123456789")
        name = _TYPES.get(dtype) or (f"{_TYPES[letters]}{dtype[len(letters) :]}" if letters in _TYPES else "")
        if kind == "alpha":
            if math.prod(shape) != 1 or name == "bool" or name.startswith("complex"):
                self._refuse(f"{key} has the shape {list(shape)} and the type {name or dtype}; it must be one number")
        elif name:
            self._refuse(f"{key} has values of type {name}, which a LoRA cannot have; use another file")

    def _form(self) -> tuple[Form | None, list[str]]:
        """The form of the weight's change and its kinds of tensors."""
        found = {form: [kind for kind in kinds if kind in self.keys] for form, kinds in FORMS.items()}
        found = {form: kinds for form, kinds in found.items() if kinds}
        if len(found) > 1:
            (one, first), (other, second), *_ = found.items()
            self._refuse(f"{self.keys[first[0]]} and {self.keys[second[0]]} change one layer twice, as {one} and as "
                         f"{other}; use a file that changes it once")  # fmt: skip
        form, kinds = next(iter(found.items()), (None, []))
        if "alpha" in self.keys and form in (None, "a whole difference"):
            self._refuse(f"{self.keys['alpha']} comes without the factors that it scales; the file is damaged")
        if kinds == ["up_bias"]:
            self._refuse(f"{self.keys['up_bias']} comes without its factors; the file is damaged")
        if form == "a LoRA" and "down" not in kinds and "up" not in kinds:
            self._refuse(f"{self.keys['mid']} comes without its other factors; the file is damaged")
        return form, kinds

    def _check_shape(self, kind: str, wanted: tuple[int, ...]) -> None:
        shape = self._shape_of(kind)
        if shape == wanted:
            return
        text = f"{self.keys[kind]} has the shape {list(shape)}; this transformer needs {list(wanted)}"
        if owner := owner_of_channels(self.names[0], shape):
            self._refuse(f"{text}: {owner}; use a LoRA made for this model")
        self._refuse(f"{text}; {_OTHER_MODEL}")

    def _need(self, *kinds: str) -> None:
        """Reject a factor without its counterparts, and matrix factors for a vector."""
        there = [kind for kind in kinds if kind in self.keys]
        if len(self._shape) == 1:
            self._refuse(f"{self.keys[there[0]]} is a factor of a matrix, but {self.names[0]} is a vector; "
                         f"{_OTHER_MODEL}")  # fmt: skip
        if there and len(there) < len(kinds):
            self._refuse(f"{self.keys[there[0]]} comes without its other half; the file is damaged")

    def _rank(self, kind: str) -> int:
        """The rank, read from one factor; the others are checked against it."""
        shape = self._shape_of(kind)
        if not shape or shape[0] == 0:
            self._refuse(f"{self.keys[kind]} has the shape {list(shape)}, a factor of rank 0; the file is damaged")
        return shape[0]

    def _lora(self) -> int:
        self._need("down", "up")
        rank, (rows, *rest) = self._rank("down"), self._shape
        self._check_shape("down", (rank, *rest))
        self._check_shape("up", (rows, rank, *(1 for _ in rest[1:])))
        if "mid" in self.keys:
            self._check_shape("mid", (rank, rank))
        return rank

    def _loha(self) -> int:
        kinds = FORMS["a LoHa"]
        self._need(*kinds)
        rank, rows, columns = self._rank("hada_w1_b"), self._shape[0], self.layers[self.names[0]].columns
        for kind, wanted in zip(kinds, ((rows, rank), (rank, columns)) * 2, strict=True):
            self._check_shape(kind, wanted)
        return rank

    def _lokr(self) -> int | None:
        """The rank of a factored half; None if neither half is factored."""
        ranks: dict[str, int] = {}
        (m, k), (p, q) = (self._half_of_lokr(name, ranks) for name in ("lokr_w1", "lokr_w2"))
        if len(set(ranks.values())) > 1:
            one, other = (self.keys[f"{name}_b"] for name in ranks)
            self._refuse(f"{one} and {other} have different ranks, so the divisor of alpha is not defined")
        shape = self._shape
        if (m * p, k * q) != (shape[0], self.layers[self.names[0]].columns) or len(shape) != 2:
            key = next(self.keys[kind] for kind in FORMS["a LoKr"] if kind in self.keys)
            self._refuse(f"{key} and its other factors give a matrix of the shape {[m * p, k * q]}; this transformer "
                         f"needs {list(shape)}; {_OTHER_MODEL}")  # fmt: skip
        return next(iter(ranks.values()), None)

    def _half_of_lokr(self, name: str, ranks: dict[str, int]) -> tuple[int, int]:
        """Shape of one half of the Kronecker product: a matrix, or two factors; records their rank in ``ranks``."""
        a, b = f"{name}_a", f"{name}_b"
        self._need(a, b) if a in self.keys or b in self.keys else self._need(name)
        if name in self.keys and a in self.keys:
            self._refuse(_duplicates(self.keys[name], self.keys[a]))
        kinds = (a, b) if a in self.keys else (name,)
        if kinds[0] not in self.keys:
            other = next(key for kind, key in self.keys.items() if kind.startswith("lokr"))
            self._refuse(f"{other} comes without its other half; the file is damaged")
        for kind in kinds:
            if len(shape := self._shape_of(kind)) != 2 or 0 in shape:
                self._refuse(f"{self.keys[kind]} has the shape {list(shape)}; it must be a matrix; {_OTHER_MODEL}")
        rows, columns = self._shape_of(kinds[0])[0], self._shape_of(kinds[-1])[1]
        if len(kinds) == 2:
            ranks[name] = self._rank(b)
            self._check_shape(a, (rows, ranks[name]))
        return rows, columns

    def _biases(self) -> None:
        for kind in ("up_bias", "diff_bias"):
            if kind not in self.keys:
                continue
            if not all(self.layers[name].has_bias for name in self.names):
                self._refuse(f"{self.keys[kind]} changes a bias, but {self.names[0]} has none; {_OTHER_MODEL}")
            self._check_shape(kind, self._shape[:1])
            self._record("bias", self.keys[kind])

    def _record(self, of: Literal["weight", "bias"], key: str) -> None:
        """Record the change of each layer; rejects a layer that already has a change."""
        for name in self.names:
            if (other := self.fit.sources.setdefault((name, of), key)) != key:
                self._refuse(f"{other} and {key} both change {name}; use a file that changes a layer once")


def _duplicates(one: str, other: str) -> str:
    return f"{one} and {other} duplicate each other for one layer; use a file without duplicates"
