"""An image classifier from the Hub or a folder: scores frames for every label, on the CPU.

It runs on the CPU so that it never shares the GPU with the denoising. Knows nothing about videos, thresholds or how
the scores are used.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers import AutoImageProcessor, AutoModelForImageClassification, ImageClassificationPipeline, pipeline

from ..config import is_offline
from ..config.places import user_path
from ..errors import ConfigError, HunyuanLocalError, ModelLoadError, first_line
from ..weights.hub import Hub
from .library_output import quiet_transformers

# Files to download: many repositories also hold the same weights in other formats.
_FILES = [
    "config.json", "preprocessor_config.json", "processor_config.json", "model.safetensors",
    "model.safetensors.index.json", "model-*.safetensors",
]  # fmt: skip
_TRIAL_SIDE_PX = 256


def _ignore(note: str) -> None:
    """Default for ``on_note``."""


class FrameClassifier:
    """A loaded image classifier; thread-safe.

    Args:
        name: its Hub id or folder, for error messages.
        pipe: a transformers pipeline on the CPU.

    Attributes:
        labels: every label of the model, in the order of its outputs.
    """

    def __init__(self, name: str, pipe: ImageClassificationPipeline):
        self.name = name
        self._pipe = pipe
        self._alone = threading.Lock()  # one video's file may be finished in parallel with another's
        self.labels = tuple(str(label) for _, label in sorted(pipe.model.config.id2label.items()))

    def check_labels(self, wanted: Sequence[str]) -> None:
        """Check that the model has all these labels, ignoring case.

        Raises:
            ConfigError: no label is given, or the model does not have one of them.
        """
        known = {label.casefold() for label in self.labels}
        unknown = [label for label in wanted if label.casefold() not in known]
        if unknown or not wanted:
            problem = f"{self.name} has no label {', '.join(map(repr, unknown))}" if unknown else "no label is named"
            raise ConfigError(
                f"safety_labels={list(wanted)}: {problem}; its labels are {', '.join(self.labels)}; name the labels to "
                "flag with --safety-label"
            )

    def classify(self, frames: np.ndarray) -> list[dict[str, float]]:
        """Score every label from 0 to 1, for each frame.

        transformers applies softmax or sigmoid to the outputs, as the model's config says.

        Args:
            frames: uint8 [n, height, width, 3].

        Raises:
            ValueError: ``frames`` has another dtype or shape.
            ModelLoadError: a score is not from 0 to 1.
        """
        from PIL import Image

        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
            raise ValueError(f"frames must be uint8 [n, height, width, 3], not {frames.dtype} {[*frames.shape]}")
        with self._alone:
            found = [self._pipe(Image.fromarray(frame), top_k=len(self.labels)) for frame in frames]
        scores = [{str(entry["label"]): float(entry["score"]) for entry in entries} for entries in found]
        for label, score in (item for frame in scores for item in frame.items()):
            if not 0 <= score <= 1:  # also rejects NaN, which would pass every threshold
                raise ModelLoadError(
                    f"safety_model={self.name!r}: gives a frame the score {score} for {label!r}; scores must "
                    "be from 0 to 1, so its weights are damaged or it is not a classifier; choose another with "
                    "--safety-model"
                )
        return scores


def load_classifier(
    model_id: str, revision: str | None = None, on_note: Callable[[str], None] = _ignore, hub: Hub | None = None
) -> FrameClassifier:
    """Load the classifier of that id or folder and try it on one image; keeps the last one loaded in the process.

    Reads only safetensors files and runs no code from the repository. A classifier in the Hub's cache is used
    without a check for updates; otherwise it is downloaded, unless ``HF_HUB_OFFLINE`` is set.

    Args:
        model_id: a Hub id, or a folder that works with transformers' ``image-classification`` pipeline.
        revision: branch, tag or commit of a Hub repository.
        on_note: called when a download starts.
        hub: None uses the Hub of the environment.

    Raises:
        ConfigError: Pillow is missing, or ``revision`` is given for a folder.
        ModelLoadError: the model is missing, cannot be downloaded, or is not a trained image classifier.
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"the safety check needs the extra 'safety': pip install 'hunyuan-local[safety]' ({error}); or turn the "
            "check off with --safety off"
        ) from error
    return _load(model_id, _find(model_id, revision, on_note, hub))


@functools.lru_cache(maxsize=1)
def _load(name: str, folder: Path) -> FrameClassifier:
    options = {"local_files_only": True, "trust_remote_code": False}
    with _translated_errors(name), quiet_transformers():
        # The pipeline could load these itself, but would not report missing weights, which are filled randomly.
        model, report = AutoModelForImageClassification.from_pretrained(
            str(folder), dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options
        )
        if missing := report["missing_keys"]:
            raise ModelLoadError(
                f"safety_model={name!r}: {folder} lacks {', '.join(sorted(missing)[:4])}, so it is not a trained "
                "image classifier; choose another with --safety-model"
            )
        # The other backend of processors needs torchvision.
        processor = AutoImageProcessor.from_pretrained(str(folder), backend="pil", **options)
        pipe = pipeline("image-classification", model=model, image_processor=processor, device="cpu")
        classifier = FrameClassifier(name, pipe)
        classifier.classify(np.full((1, _TRIAL_SIDE_PX, _TRIAL_SIDE_PX, 3), 127, np.uint8))
    return classifier


class _Wanted(TypedDict):
    """The arguments of ``snapshot_download`` that select the files and the cache."""

    revision: str | None
    cache_dir: Path
    allow_patterns: list[str]


def _find(model_id: str, revision: str | None, on_note: Callable[[str], None], hub: Hub | None) -> Path:
    """The classifier's folder: the given one, or that in the Hub's cache, downloaded if missing."""
    folder = user_path("safety_model", model_id)
    if folder.is_dir():
        if revision is not None:
            raise ConfigError(
                f"safety_revision={revision!r}: the classifier {model_id!r} is a folder; only Hub ids have revisions"
            )
        return folder.resolve()
    hub = hub or Hub.default()
    wanted: _Wanted = {"revision": revision, "cache_dir": hub.cache, "allow_patterns": _FILES}
    with _translated_fetching(model_id, revision, hub), quiet_transformers():
        with contextlib.suppress(LocalEntryNotFoundError):  # not complete in the cache: download it
            return Path(snapshot_download(model_id, local_files_only=True, **wanted))
        if is_offline():
            raise ModelLoadError(
                f"safety_model={model_id!r}: not a folder, not complete in the local cache, and "
                "HF_HUB_OFFLINE is set; run once with network access, or give the path of a folder that holds it"
            )
        hub.check_download(f"safety_model={model_id!r}")
        on_note(f"downloading the safety classifier {model_id} from {hub.endpoint}")
        return Path(snapshot_download(model_id, endpoint=hub.endpoint, library_name="hunyuan-local", **wanted))


@contextlib.contextmanager
def _translated_errors(name: str) -> Iterator[None]:
    """Translate library errors during loading into this package's errors."""
    try:
        yield
    except HunyuanLocalError:
        raise
    except Exception as error:  # damaged files and processors with missing libraries raise any type of error
        raise ModelLoadError(
            f"safety_model={name!r}: cannot be used as an image classifier: {first_line(error)}; if files are "
            "missing or damaged, download it again; otherwise choose another with --safety-model"
        ) from error


@contextlib.contextmanager
def _translated_fetching(model_id: str, revision: str | None, hub: Hub) -> Iterator[None]:
    """Translate errors of the Hub's client, its HTTP library and the disk into this package's errors."""
    try:
        yield
    except HunyuanLocalError:
        raise
    except Exception as error:  # the client and its HTTP library raise different types
        match error:
            case HFValidationError():
                why = "no such folder, and not a Hub id (owner/name)"
            case RevisionNotFoundError():
                why = f"the repository has no revision {revision!r}"
            case GatedRepoError():
                why = "needs its terms accepted on the Hub and a login (hf auth login)"
            case RepositoryNotFoundError():
                why = "no such folder, and no such Hub repository"
            case _:
                why = f"no such folder, and the download from {hub.endpoint} failed ({first_line(error)})"
        remedy = "give the id or the folder of a classifier with --safety-model, or try again later"
        raise ModelLoadError(f"safety_model={model_id!r}: {why}; {remedy}") from error
