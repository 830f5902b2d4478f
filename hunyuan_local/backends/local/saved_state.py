"""Which saved state belongs to which request: where it lies, and what must not have changed since.

Knows nothing about what is in a state.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from ...config import ModelConfig
from ...provenance import library_versions, weights_identity
from ...schema import GenerationRequest
from ..base import GenerationContext

if TYPE_CHECKING:
    from ...pipeline.checkpoint import Checkpoint
    from ...pipeline.model import LoadedModel


def open_checkpoint(request: GenerationRequest, config: ModelConfig, context: GenerationContext) -> Checkpoint:
    """Named by what was asked, so that the same command finds it; its content is checked at the load."""
    from ...pipeline.checkpoint import Checkpoint, key_of

    if context.checkpoint_dir is None:
        return Checkpoint()
    # Where it is as seen from here, so that a state may be taken to another machine with its folder.
    output = "" if context.output is None else os.path.relpath(context.output, context.checkpoint_dir)
    key = key_of(request.model_dump_json(), config.model_dump_json(), output)
    return Checkpoint(context.checkpoint_dir, key, context.checkpoint_every)


def kept_rewriting(checkpoint: Checkpoint, request: GenerationRequest) -> GenerationRequest | None:
    """The request with its prompt as it was rewritten before an interruption; None if nothing was saved then.

    Args:
        request: as it was asked for, which ``awaits_rewriting``.
    """
    saved = json.loads(checkpoint.saved_facts().get("request", "{}"))
    if saved.get("original_prompt") != request.prompt:
        return None
    return request.replace(prompt=saved["prompt"], original_prompt=request.prompt)


def facts_of(model: LoadedModel, request: GenerationRequest, render_size: tuple[int, int]) -> dict[str, str]:
    """What must be the same for the rest of the steps to give the same frames."""
    from ...pipeline.memory.device import device_name

    versions = library_versions()
    return {
        "request": request.model_dump_json(),
        "size": str(render_size),
        "weights": weights_identity(model.folder),
        "profile": json.dumps(model.profile.exact_frames, sort_keys=True),
        "files": json.dumps(model.extra_files),
        "device": device_name(model.profile),
    } | {name: versions[name] for name in ("torch", "diffusers", "transformers", "tokenizers")}
