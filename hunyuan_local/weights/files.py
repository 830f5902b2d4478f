"""The files of a HunyuanVideo checkpoint in diffusers' layout: those that are read, and those that a folder lacks.

Knows nothing about the Hub; names are relative to the checkpoint, with slashes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

MODEL_INDEX = "model_index.json"
PIPELINE_CLASS = "HunyuanVideoPipeline"
_MODELS = ("transformer", "vae", "text_encoder", "text_encoder_2")
_OTHERS = ("scheduler", "tokenizer", "tokenizer_2")
CONFIGS = (MODEL_INDEX, *(f"{model}/config.json" for model in _MODELS))
_REQUIRED = (*CONFIGS, "tokenizer/tokenizer.json", "scheduler/scheduler_config.json")
# Not pickles (.bin, .pt), and not the second precision that some repositories hold (model.fp16.safetensors).
_WEIGHTS = re.compile(r"(diffusion_pytorch_model|model)(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")


def wanted_files(names: Iterable[str]) -> list[str]:
    """Those of a repository's files that the pipeline reads: safetensors in one precision, configs, tokenizers."""
    return [name for name in names if _is_wanted(name)]


def absent_parts(names: Collection[str]) -> list[str]:
    """What a checkpoint of these files would lack, shards that an index names aside."""
    return _absent(names, lambda index: ())


def missing_files(folder: Path) -> list[str]:
    """Files that a complete checkpoint has and this folder lacks, such as shards not yet downloaded.

    A damaged index of shards is listed as such.
    """

    def shards(index: str) -> Iterable[str]:
        try:
            return set(json.loads((folder / index).read_text())["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return [f"{Path(index).name} (damaged)"]

    return _absent({path.relative_to(folder).as_posix() for path in _files(folder)}, shards)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold a component's weights: those that an index names, else the one that is there."""
    names = sorted(path.name for path in folder.glob("*.safetensors*") if _WEIGHTS.fullmatch(path.name))
    index = next((name for name in names if name.endswith(".index.json")), None)
    if index is not None:
        names = sorted(set(json.loads((folder / index).read_text())["weight_map"].values()))
    return [folder / name for name in names]


def pipeline_class(folder: Path) -> str | None:
    """The class that a checkpoint says it is of; None if it cannot be read."""
    try:
        name = json.loads((folder / MODEL_INDEX).read_text()).get("_class_name")
    except (OSError, ValueError, AttributeError):
        return None
    return name if isinstance(name, str) else None


def problem_of(folder: Path) -> str:
    """Why a checkpoint cannot be loaded, as the rest of a sentence about it; empty if all of its files are there."""
    missing = missing_files(folder)
    if MODEL_INDEX not in missing and (found := pipeline_class(folder)) != PIPELINE_CLASS:
        return f"is a {found}, not a {PIPELINE_CLASS}" if found else f"{MODEL_INDEX} cannot be read"
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        return f"lacks {', '.join(missing[:3])}{more}"
    return ""


def has_configs(folder: Path) -> bool:
    """Whether a folder says which model it holds: its index and the configuration of each component are there."""
    return all((folder / name).is_file() for name in CONFIGS)


def size_on_disk(folder: Path) -> int:
    """Bytes of a checkpoint's files, of what links lead to, and each file once."""
    found = [path.stat() for path in _files(folder)]
    return sum({(status.st_dev, status.st_ino): status.st_size for status in found}.values())


def _files(folder: Path) -> Iterator[Path]:
    """What lies in the checkpoint's own folders; a link of the Hub's cache whose file is gone is no file."""
    for part in ("", *_MODELS, *_OTHERS):
        yield from (path for path in (folder / part).glob("*") if path.is_file())


def _is_wanted(name: str) -> bool:
    folder, _, file = name.rpartition("/")
    if folder in _MODELS:
        return file == "config.json" or _WEIGHTS.fullmatch(file) is not None
    return folder in _OTHERS or name == MODEL_INDEX


def _absent(names: Collection[str], shards: Callable[[str], Iterable[str]]) -> list[str]:
    absent = [name for name in _REQUIRED if name not in names]
    if "tokenizer_2/tokenizer.json" not in names:
        absent += [name for name in ("tokenizer_2/vocab.json", "tokenizer_2/merges.txt") if name not in names]
    for model in _MODELS:
        own = [name for name in names if name.startswith(f"{model}/")]
        index = next((name for name in sorted(own) if name.endswith(".safetensors.index.json")), None)
        if index is not None:
            absent += [shard for file in sorted(shards(index)) if (shard := f"{model}/{file}") not in names]
        elif not any(name.endswith(".safetensors") for name in own):
            absent.append(f"{model}/*.safetensors")
    return absent
