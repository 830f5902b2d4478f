"""A disk cache of encoded prompts, so that a prompt that was encoded before needs no text encoder.

One safetensors file per prompt, named by a hash of everything its content depends on. Knows nothing about how
prompts are encoded.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ...config import PromptTemplate
from ...durable import replacing
from .prompt import Prompt

Embeddings = dict[str, torch.Tensor]

MAX_BYTES = 2**30  # about 500 prompts of the 13 B model
NAMES = ("prompt_embeds", "pooled_prompt_embeds", "prompt_attention_mask")
_ENCODERS = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
_SNAPSHOT = re.compile(r"[0-9a-f]{40}")


class PromptCache:
    """A folder of encoded prompts; above ``max_bytes``, deletes the least recently used ones.

    Args:
        folder: created when the first prompt is saved.
        encoder: identifies everything else the embeddings depend on; see :func:`encoder_identity`.
        template: the template around every prompt.
        max_bytes: limit for all files together; None for no limit.
    """

    def __init__(self, folder: Path, encoder: str, template: PromptTemplate, max_bytes: int | None = MAX_BYTES):
        self._folder, self._max_bytes = folder, max_bytes
        self._shared = [encoder, template.model_dump_json()]

    def has(self, prompt: Prompt) -> bool:
        """Whether a prompt's file exists; it may still turn out to be damaged."""
        return self._path(prompt).exists()

    def load(self, prompt: Prompt) -> Embeddings | None:
        """The embeddings of a prompt, on the CPU; None if they are missing or damaged."""
        path = self._path(prompt)
        try:
            found: Embeddings = load_file(path)
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        if found.keys() != set(NAMES):
            return None
        with contextlib.suppress(OSError):  # the cache may be read-only
            path.touch()
        return found

    def save(self, prompt: Prompt, embeddings: Embeddings) -> None:
        """Save the embeddings of a prompt.

        Raises:
            OSError: the folder cannot be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with replacing(self._path(prompt)) as partial:
            save_file({name: embeddings[name].cpu().contiguous() for name in NAMES}, partial)
        if self._max_bytes is not None:
            self._prune(self._max_bytes)

    def _path(self, prompt: Prompt) -> Path:
        key = hashlib.sha256(json.dumps([*prompt.key, *self._shared]).encode()).hexdigest()
        return self._folder / f"prompt-{key}.safetensors"

    def _prune(self, max_bytes: int) -> None:
        found = [(path, path.stat()) for path in self._folder.glob("prompt-*.safetensors")]
        total = sum(stat.st_size for _, stat in found)
        for path, stat in sorted(found, key=lambda item: item[1].st_mtime_ns):
            if total <= max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= stat.st_size


def encoder_identity(folder: Path, dtypes: Mapping[str, str], devices: Mapping[str, str]) -> str:
    """Hash of what embeddings depend on besides prompt and template: weights, precision, device, library versions.

    A snapshot in the Hub's cache is identified by its commit; any other folder by the name, size and modification
    time of each file. Hashing the contents (15 GB) would take longer than the cache saves.
    """
    resolved = folder.resolve()
    if resolved.parent.name == "snapshots" and _SNAPSHOT.fullmatch(resolved.name):
        weights: object = resolved.name
    else:
        files = sorted(path for name in _ENCODERS for path in (resolved / name).rglob("*") if path.is_file())
        weights = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "tokenizers")}
    facts = json.dumps([weights, dtypes, devices, versions], sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()
