"""The files of a HunyuanVideo checkpoint in the diffusers layout: which are read, and which are missing in a folder.

Does not depend on the Hub. File names are relative to the checkpoint, with slashes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

MODEL_INDEX = "model_index.json"
# The pipelines that can be run, and whether their videos begin with an image.
PIPELINE_CLASSES = {"HunyuanVideoPipeline": False, "HunyuanVideoImageToVideoPipeline": True}
SUPPORTED = " or ".join(PIPELINE_CLASSES)
_MODELS = ("transformer", "vae", "text_encoder", "text_encoder_2")
_IMAGE_PROCESSOR = "image_processor/preprocessor_config.json"
_OTHERS = ("scheduler", "tokenizer", "tokenizer_2", "image_processor")
CONFIGS = (MODEL_INDEX, *(f"{model}/config.json" for model in _MODELS))
_REQUIRED = (*CONFIGS, "tokenizer/tokenizer.json", "scheduler/scheduler_config.json")
# Excludes pickles (.bin, .pt) and the second precision that some repositories have (model.fp16.safetensors).
_WEIGHTS = re.compile(r"(diffusion_pytorch_model|model)(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")


def wanted_files(names: Iterable[str]) -> list[str]:
    """The files of a repository that the pipeline reads: safetensors in one precision, configs and tokenizers."""
    return [name for name in names if _is_wanted(name)]


def absent_parts(names: Collection[str]) -> list[str]:
    """Files that a checkpoint with these files lacks, not counting the shards in an index."""
    return _absent(names, lambda index: ())


def missing_files(folder: Path) -> list[str]:
    """Files that this folder lacks for a complete checkpoint, such as shards not yet downloaded.

    A damaged shard index is listed as such.
    """

    def shards(index: str) -> Iterable[str]:
        try:
            return set(json.loads((folder / index).read_text())["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return [f"{Path(index).name} (damaged)"]

    return _absent({path.relative_to(folder).as_posix() for path in _files(folder)}, shards)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a component: the shards in its index or, without an index, its single file."""
    names = sorted(path.name for path in folder.glob("*.safetensors*") if _WEIGHTS.fullmatch(path.name))
    index = next((name for name in names if name.endswith(".index.json")), None)
    if index is not None:
        names = sorted(set(json.loads((folder / index).read_text())["weight_map"].values()))
    return [folder / name for name in names]


def pipeline_class(folder: Path) -> str | None:
    """The pipeline class in the index of a checkpoint; None if it cannot be read."""
    try:
        name = json.loads((folder / MODEL_INDEX).read_text()).get("_class_name")
    except (OSError, ValueError, AttributeError):
        return None
    return name if isinstance(name, str) else None


def problem_of(folder: Path) -> str:
    """Why a checkpoint cannot be loaded, as a phrase that follows its path; empty if all files are present."""
    missing = missing_files(folder)
    if MODEL_INDEX not in missing and (found := pipeline_class(folder)) not in PIPELINE_CLASSES:
        return f"is a {found}, not a {SUPPORTED}" if found else f"{MODEL_INDEX} cannot be read"
    if PIPELINE_CLASSES.get(pipeline_class(folder) or "") and not (folder / _IMAGE_PROCESSOR).is_file():
        missing.append(_IMAGE_PROCESSOR)
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        return f"lacks {', '.join(missing[:3])}{more}"
    return ""


def has_configs(folder: Path) -> bool:
    """Whether a folder has the index and the config of each component, which identify the model."""
    return all((folder / name).is_file() for name in CONFIGS)


def size_on_disk(folder: Path) -> int:
    """Total size of a checkpoint's files in bytes; follows links and counts each file once."""
    found = [path.stat() for path in _files(folder)]
    return sum({(status.st_dev, status.st_ino): status.st_size for status in found}.values())


def _files(folder: Path) -> Iterator[Path]:
    """Files in the checkpoint's component folders; broken links of the Hub cache do not count."""
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
