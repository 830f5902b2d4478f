"""``hunyuan-local replay``: make a video again from its own statement, and compare."""

from __future__ import annotations

import json
import math
from itertools import zip_longest
from pathlib import Path

import numpy as np
import rich_click as click

from ...backends.registry import get_backend
from ...config import ModelConfig
from ...config.places import temporary_folder
from ...errors import ConfigError
from ...provenance import Provenance, differences, read_provenance
from ...video import check_output_path, read_frames
from ..shared.console import ProgressDisplay, stderr
from ..shared.options import model_option


@click.command(name="replay")
@click.argument("file", type=click.Path(path_type=Path))
@model_option
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Keep the new video here.")
@click.option("--overwrite", is_flag=True, help="Replace the output file if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as one line of JSON.")
def command(
    file: Path,
    model: str | None,
    revision: str | None,
    profile: str | None,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Make FILE again from what it says of itself, and say whether the frames are identical.

    Model, revision and profile are those of the file unless given. Exit code 0 if the frames are
    identical, 1 if they differ.
    """
    old = read_provenance(file)
    if old.model.config is None and model is None:
        raise ConfigError(
            f"{file}: was made by {old.backend}, whose model is not here; give --model to make it with your own, or "
            f"make it there anew with hunyuan-local generate --backend {old.backend}"
        )
    if output is not None:
        check_output_path(output, overwrite)
    backend = get_backend(
        "local", model=model or _model_of(old), revision=revision, profile=profile or old.runtime or old.profile
    )
    with temporary_folder("hunyuan-local-replay-") as folder, ProgressDisplay(stderr()) as display:
        display.begin()
        target = output or folder / "replay.mp4"
        result = backend.generate(old.request, display.context(target, overwrite))
        new = Provenance(**result.provenance)
        identical = new.frames_sha256 == old.frames_sha256
        psnr_db = None if identical else psnr_of_files(file, target)
    changed = differences(old, new)
    if as_json:
        psnr_json = psnr_db if psnr_db is None or math.isfinite(psnr_db) else "infinite"
        print(json.dumps({"identical": identical, "psnr_db": psnr_json, "differences": changed}))
    elif identical:
        print("identical: the frames are the same, to the last bit")
    else:
        print(f"different: the two files are {psnr_db:.1f} dB apart (PSNR)")
    if not as_json:
        print("\n".join(changed) or "nothing differs in model, profile, device or library versions")
    raise SystemExit(0 if identical else 1)


def psnr_of_files(first: Path, second: Path) -> float:
    """PSNR in dB over all frames of two files; infinite if equal, 0 if their sizes or lengths differ."""
    squares, values = 0.0, 0
    for a, b in zip_longest(read_frames(first), read_frames(second)):
        if a is None or b is None or a.shape != b.shape:
            return 0.0
        squares += float(np.square(a.astype(np.float64) - b).sum())
        values += a.size
    return math.inf if squares == 0 else 10 * math.log10(255**2 * values / squares)


def _model_of(old: Provenance) -> ModelConfig:
    """The preset that the file holds, at the very commit that its weights were of."""
    config = old.model.config
    assert config is not None  # else --model is given
    kind, _, commit = (old.model.weights or "").partition(":")
    if kind == "commit" and config.folder is None:
        return config.with_revision(commit)
    return config
