"""A LoRA file as changes of the transformer's layers, every key of it accounted for.

A key that speaks of this transformer and is not understood is an error: a part of a LoRA added alone gives another
video than the LoRA. Keys of text encoders, which LoRAs for several programs hold, are left out with a note.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from safetensors import SafetensorError, safe_open

from ...config import LoraConfig
from ...weights.lora import is_like_flux
from ...weights.lora_header import Header
from ...weights.lora_keys import find_layer, kind_of, names_transformer, why_not_added
from .lora_group import Changes, Group, Layer


def read_changes(
    config: LoraConfig, header: Header, known: Mapping[str, Sequence[str]], layers: Mapping[str, Layer]
) -> Changes:
    """Read a file and check it against the transformer's layers.

    Args:
        header: of its file.
        known: every spelling of a layer; see :func:`...weights.lora.spellings`.
        layers: those of the transformer, by diffusers' names.

    Raises:
        ModelLoadError: a key that is not understood or does not fit, numbers that cannot be right, or nothing that
            changes this transformer; names the key.
    """
    changes = Changes(config, header, notes=list(header.notes))
    groups = _grouped(changes, known)
    try:
        with safe_open(header.file, "pt") as opened:
            for spelling, keys in groups.items():
                tensors = {kind: opened.get_tensor(key) for kind, key in keys.items()}
                Group(changes, spelling, keys, tensors, known[spelling], layers).read()
    except (OSError, SafetensorError) as error:
        raise changes.fault(f"{header.file.name} cannot be read ({error}); fetch it again") from error
    if all(change.is_zero for change in (*changes.weights.values(), *changes.biases.values())):
        changes.notes.append(f"lora={config.path!r}: changes nothing, since all its changes are zero")
    if is_like_flux(changes.layers, layers):
        changes.notes.append(
            f"lora={config.path!r}: changes every double block but the last, every single block but the last two, and "
            "nothing of the token refiner: these are the blocks of FLUX.1, whose layers have the same names and "
            "shapes; if it was made for FLUX.1, its videos are wrong"
        )
    return changes


def _grouped(changes: Changes, known: Mapping[str, Sequence[str]]) -> dict[str, dict[str, str]]:
    """By the file's spelling of a layer: what there is of it, and its key; refuses keys that are not understood."""
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
            f"{one} and {other} are of different adapters ({', '.join(sorted(adapters))}); use a file of one adapter"
        )
    _check_used(changes, bool(groups), strange, unused)
    return groups


def _put(changes: Changes, keys: dict[str, str], kind: str, key: str) -> None:
    if kind in keys:
        raise changes.fault(f"{keys[kind]} and {key} say the same of one layer; use a file that says it once")
    keys[kind] = key


def _check_used(changes: Changes, is_used: bool, strange: Sequence[str], unused: Sequence[str]) -> None:
    count, name = len(changes.header.shapes), changes.header.file.name
    if not is_used:
        raise changes.fault(
            f"none of the {count} keys of {name} belongs to a layer of this transformer (found: "
            f"{', '.join([*strange, *unused][:3])}; "
            "wanted are such as transformer.transformer_blocks.0.attn.to_q.lora_A.weight, "
            "diffusion_model.double_blocks.0.img_attn.qkv.lora_down.weight or "
            "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight); use a LoRA made for HunyuanVideo"
        )
    if strange:
        raise changes.fault(
            f"{strange[0]} names no layer of this transformer, as {len(strange)} of the {count} keys of {name}; the "
            "LoRA was made for another model"
        )
    if unused:
        changes.notes.append(f"{len(unused)} of the {count} keys of {name} are not used, as {', '.join(unused[:3])}")
