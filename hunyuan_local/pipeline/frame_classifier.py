"""A classifier of pictures from the Hub or a folder: the scores of every label for frames, on the CPU.

It runs on the CPU so that it never shares the GPU with the denoising. Knows nothing about videos, thresholds or
what becomes of a picture.
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
from .quiet import quiet_transformers

# What is read of a repository: many hold the same weights in other formats besides.
_FILES = [
    "config.json", "preprocessor_config.json", "processor_config.json", "model.safetensors",
    "model.safetensors.index.json", "model-*.safetensors",
]  # fmt: skip
_TRIAL_SIDE_PX = 256


def _ignore(note: str) -> None:
    """The callback of a caller who does not ask."""


class FrameClassifier:
    """A loaded classifier; it may be asked from any thread.

    Args:
        name: its id or folder, as errors call it.
        pipe: transformers' pipeline, on the CPU.

    Attributes:
        labels: all that it knows, in the order of its outputs.
    """

    def __init__(self, name: str, pipe: ImageClassificationPipeline):
        self.name = name
        self._pipe = pipe
        self._alone = threading.Lock()  # the file of one video may be finished while that of another one is
        self.labels = tuple(str(label) for _, label in sorted(pipe.model.config.id2label.items()))

    def check_labels(self, wanted: Sequence[str]) -> None:
        """Do nothing if it has all these labels, in whatever case.

        Raises:
            ConfigError: there is none, or one that it does not have.
        """
        known = {label.casefold() for label in self.labels}
        unknown = [label for label in wanted if label.casefold() not in known]
        if unknown or not wanted:
            problem = f"{self.name} has no label {', '.join(map(repr, unknown))}" if unknown else "no label is named"
            raise ConfigError(
                f"safety_labels={list(wanted)}: {problem}; its labels are {', '.join(self.labels)}; name those that "
                "are to be flagged with --safety-label"
            )

    def classify(self, frames: np.ndarray) -> list[dict[str, float]]:
        """For each frame the score of every label, 0 to 1.

        The scores are the softmax or the sigmoid of the outputs, as transformers takes it from the model's config.

        Args:
            frames: uint8 [n, height, width, 3].

        Raises:
            ValueError: not such frames.
            ModelLoadError: a score is no number from 0 to 1.
        """
        from PIL import Image

        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
            raise ValueError(f"frames must be uint8 [n, height, width, 3], not {frames.dtype} {[*frames.shape]}")
        with self._alone:
            found = [self._pipe(Image.fromarray(frame), top_k=len(self.labels)) for frame in frames]
        scores = [{str(entry["label"]): float(entry["score"]) for entry in entries} for entries in found]
        for label, score in (item for frame in scores for item in frame.items()):
            if not 0 <= score <= 1:  # neither is NaN, which would pass every threshold
                raise ModelLoadError(
                    f"safety_model={self.name!r}: gives a picture the score {score} for {label!r}, and a score must be "
                    "from 0 to 1; its weights are damaged, or it is no classifier: choose another with --safety-model"
                )
        return scores


def load_classifier(
    model_id: str, revision: str | None = None, on_note: Callable[[str], None] = _ignore, hub: Hub | None = None
) -> FrameClassifier:
    """The classifier of that id or folder, tried on one picture; loaded once a process, until another one is asked for.

    Only safetensors files are read, and no code of a repository is run. A classifier that is in the Hub's cache is
    used as it is; otherwise it is downloaded, unless ``HF_HUB_OFFLINE`` is set.

    Args:
        model_id: a Hub id, or a folder that transformers' ``image-classification`` pipeline takes.
        revision: branch, tag or commit of a Hub repository.
        on_note: told of a download.
        hub: None is the Hub of the environment.

    Raises:
        ConfigError: Pillow is missing, or a revision of a folder is asked for.
        ModelLoadError: it is not there, cannot be fetched, or is no trained classifier of pictures.
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"the safety check needs the extra 'safety': pip install 'hunyuan-local[safety]' ({error}); or leave the "
            "check out with --safety off"
        ) from error
    return _load(model_id, _find(model_id, revision, on_note, hub))


@functools.lru_cache(maxsize=1)
def _load(name: str, folder: Path) -> FrameClassifier:
    options = {"local_files_only": True, "trust_remote_code": False}
    with _translated_errors(name), quiet_transformers():
        # The pipeline would load these by itself, but not say that a part of the weights was missing and is random.
        model, report = AutoModelForImageClassification.from_pretrained(
            str(folder), dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options
        )
        if missing := report["missing_keys"]:
            raise ModelLoadError(
                f"safety_model={name!r}: {folder} lacks {', '.join(sorted(missing)[:4])}, so it is no trained "
                "classifier of pictures; choose another with --safety-model"
            )
        # The processors of the other kind need torchvision.
        processor = AutoImageProcessor.from_pretrained(str(folder), backend="pil", **options)
        pipe = pipeline("image-classification", model=model, image_processor=processor, device="cpu")
        classifier = FrameClassifier(name, pipe)
        classifier.classify(np.full((1, _TRIAL_SIDE_PX, _TRIAL_SIDE_PX, 3), 127, np.uint8))
    return classifier


class _Wanted(TypedDict):
    """What of a repository is fetched, and where to."""

    revision: str | None
    cache_dir: Path
    allow_patterns: list[str]


def _find(model_id: str, revision: str | None, on_note: Callable[[str], None], hub: Hub | None) -> Path:
    """The folder of a classifier: its own, or that in the Hub's cache, downloaded if it is not there."""
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
        with contextlib.suppress(LocalEntryNotFoundError):  # then it is downloaded
            return Path(snapshot_download(model_id, local_files_only=True, **wanted))
        if is_offline():
            raise ModelLoadError(
                f"safety_model={model_id!r}: no folder of that name, not complete in the local cache, and "
                "HF_HUB_OFFLINE is set; run once with a network, or give the path of a folder that holds it"
            )
        hub.check_download(f"safety_model={model_id!r}")
        on_note(f"downloading {model_id}, which checks the frames, from {hub.endpoint}")
        return Path(snapshot_download(model_id, endpoint=hub.endpoint, library_name="hunyuan-local", **wanted))


@contextlib.contextmanager
def _translated_errors(name: str) -> Iterator[None]:
    """One border where the libraries' errors of loading become ours."""
    try:
        yield
    except HunyuanLocalError:
        raise
    except Exception as error:  # damaged files, and processors that lack a library, raise whatever they raise
        raise ModelLoadError(
            f"safety_model={name!r}: cannot be used as a classifier of pictures: {first_line(error)}; if files are "
            "missing or damaged, fetch it again, else choose another with --safety-model"
        ) from error


@contextlib.contextmanager
def _translated_fetching(model_id: str, revision: str | None, hub: Hub) -> Iterator[None]:
    """One border where the errors of the Hub's client, its HTTP library and the disk become ours."""
    try:
        yield
    except HunyuanLocalError:
        raise
    except Exception as error:  # the client and its HTTP library each have their own
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
                why = f"no such folder, and it cannot be fetched from {hub.endpoint} ({first_line(error)})"
        remedy = "give the id or the folder of a classifier with --safety-model, or try again later"
        raise ModelLoadError(f"safety_model={model_id!r}: {why}; {remedy}") from error
