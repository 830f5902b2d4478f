"""Reads a LoRA file as changes of the transformer's layers and accounts for every key.

An unknown key that refers to the transformer is an error, because adding only a part of a LoRA gives a different
video. Keys for text encoders, found in LoRAs for several programs, are ignored with a note.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from safetensors import SafetensorError, safe_open

from ...config import LoraConfig
from ...weights.layer_names import is_like_flux
from ...weights.lora_header import Header
from ...weights.lora_keys import find_layer, kind_of, names_transformer, why_not_added
from .lora_layer import Changes, Group, Layer


def read_changes(
    config: LoraConfig, header: Header, known: Mapping[str, Sequence[str]], layers: Mapping[str, Layer]
) -> Changes:
    """Read a file and check it against the transformer's layers.

    Args:
        config: the LoRA's path and scale.
        header: the file's header.
        known: every spelling of a layer; see :func:`...weights.layer_names.spellings`.
        layers: the transformer's layers, by diffusers' names.

    Raises:
        ModelLoadError: a key is unknown or does not fit, a value cannot be right, or nothing changes this transformer;
            names the key.
    """
    changes = Changes(config, header, notes=list(header.notes))
    groups = _grouped(changes, known)
    try:
        with safe_open(header.file, "pt") as opened:
            for spelling, keys in groups.items():
                tensors = {kind: opened.get_tensor(key) for kind, key in keys.items()}
                Group(changes, spelling, keys, tensors, known[spelling], layers).read()
    except (OSError, SafetensorError) as error:
        raise changes.fault(f"{header.file.name} cannot be read ({error}); download it again") from error
    if all(change.is_zero for change in (*changes.weights.values(), *changes.biases.values())):
        changes.notes.append(f"lora={config.path!r}: has no effect, because all its changes are zero")
    if is_like_flux(changes.layers, layers):
        changes.notes.append(
            f"lora={config.path!r}: changes every double block but the last, every single block but the last two, and "
            "nothing of the token refiner: these are the blocks of FLUX.1, whose layers have the same names and "
            "shapes; if it was made for FLUX.1, it gives wrong videos"
        )
    return changes


def _grouped(changes: Changes, known: Mapping[str, Sequence[str]]) -> dict[str, dict[str, str]]:
    """Group the keys by the file's spelling of a layer, then by kind; rejects unknown keys."""
    groups: dict[str, dict[str, str]] = {}
    adapters: dict[str, str] = {}
    strange: list[str] = []
    unused: list[str] = []
    for key in changes.header.shapes:
        if (found := find_layer(key, known)) is None:
            (strange if names_transformer(key) else unused).append(key)
            continue
        if (kind := kind_of(found[1])) is None:
            raise changes.fault(f"{key} {why_not_added(found[1])}")
        _put(changes, groups.setdefault(found[0], {}), kind[0], key)
        if kind[1] is not None:
            adapters.setdefault(kind[1], key)
    if len(adapters) > 1:
        one, other, *_ = adapters.values()
        raise changes.fault(
            f"{one} and {other} belong to different adapters ({', '.join(sorted(adapters))}); use a file with one "
            "adapter"
        )
    _check_used(changes, bool(groups), strange, unused)
    return groups


def _put(changes: Changes, keys: dict[str, str], kind: str, key: str) -> None:
    if kind in keys:
        raise changes.fault(f"{keys[kind]} and {key} duplicate each other for one layer; use a file without duplicates")
    keys[kind] = key


def _check_used(changes: Changes, is_used: bool, strange: Sequence[str], unused: Sequence[str]) -> None:
    count, name = len(changes.header.shapes), changes.header.file.name
    if not is_used:
        raise changes.fault(
            f"none of the {count} keys of {name} belongs to a layer of this transformer (found: "
            f"{', '.join([*strange, *unused][:3])}; "
            "expected keys such as transformer.transformer_blocks.0.attn.to_q.lora_A.weight, "
            "diffusion_model.double_blocks.0.img_attn.qkv.lora_down.weight or "
            "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight); use a LoRA made for HunyuanVideo"
        )
    if strange:
        raise changes.fault(
            f"{len(strange)} of the {count} keys of {name}, such as {strange[0]}, name no layer of this transformer; "
            "the LoRA was made for another model"
        )
    if unused:
        changes.notes.append(
            f"{len(unused)} of the {count} keys of {name} are not used, such as {', '.join(unused[:3])}"
        )
