"""The items of a batch: each with a key, which decides whether its video exists already, and a file name.

The key is a hash of the request, the model and its weights; file names do not affect it. Independent of jobs.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..schema import GenerationRequest
from .file import BatchItem

_SLUG_CHARACTERS = 40


@dataclass(frozen=True)
class Maker:
    """What generates the videos.

    Attributes:
        identity: ``Backend.identity`` of the model or service.
        weights: identity of the model weights; empty if unknown.
        defaults: values of the request fields that are not given.
        image_sizes: sizes for a request with an image; see ``GenerationRequest.with_defaults``.
    """

    identity: str
    weights: str
    defaults: dict[str, object]
    image_sizes: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class WantedItem:
    """One video of the batch.

    Attributes:
        line: line number in the batch file.
        request: complete, except for the seed if none is given.
        key: hash of the request, its copy number, the model and the weights.
    """

    line: int
    request: GenerationRequest
    key: str

    def name_for(self, seed: int) -> str:
        """File name: line, start of the prompt, seed, and enough of the key to be unique.

        It is chosen once, for the first job: editing the batch file moves lines, but does not rename files.
        """
        slug = re.sub(r"[\W_]+", "-", self.request.prompt.lower())[:_SLUG_CHARACTERS].strip("-")
        while len(slug.encode()) > 2 * _SLUG_CHARACTERS:  # file systems limit a name to 255 bytes
            slug = slug[:-1]
        return "-".join(filter(None, [f"{self.line:04}", slug, str(seed), self.key[:6]])) + ".mp4"


def wanted_items(items: Iterable[BatchItem], maker: Maker) -> tuple[list[WantedItem], list[str]]:
    """The items for a batch file's requests, and notes on duplicates.

    With the defaults filled in, equal requests with a seed are the same video and appear once. Equal requests without
    a seed are different videos; the key includes their copy number.
    """
    found: list[WantedItem] = []
    notes: list[str] = []
    lines: dict[GenerationRequest, list[int]] = {}
    for item in items:
        request = item.request.with_defaults(dict(maker.defaults), maker.image_sizes)
        same = lines.setdefault(request, [])
        if same and request.seed is not None:
            notes.append(f"line {item.line}: same video as line {same[0]}, seed {request.seed}; generated once")
            continue
        parts = [request.model_dump(mode="json"), len(same), maker.identity, maker.weights]
        same.append(item.line)
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        found.append(WantedItem(item.line, request, key))
    return found, notes
