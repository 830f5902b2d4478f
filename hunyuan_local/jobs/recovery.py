"""What an attempt that died has left, and is still of use beside the saved states."""

from __future__ import annotations

from pathlib import Path

from ..backends.safety_check import inspect_file
from ..config import SafetyConfig
from ..errors import VideoError
from ..provenance import read_provenance
from ..schema import GenerationResult
from ..video import probe
from .job import Job


def finished_before(job: Job, path: Path, safety: SafetyConfig) -> GenerationResult | None:
    """The video of an attempt that died between the file and the store; None if there is none.

    Its frames are checked anew, since that attempt may not have done so.

    Raises:
        ContentBlockedError: the safety check withholds it; the file is still there.
    """
    if not path.exists():
        return None
    try:
        said, info = read_provenance(path), probe(path)
    except VideoError:
        return None
    # The path is this job's alone. A service may have been asked for less, or have used another seed.
    if said.remote is None and said.request != job.request:
        return None
    verdict = inspect_file(safety, path, info.num_frames)
    return GenerationResult(
        path=path,
        backend=said.backend,
        model=said.model.name or "",
        seed=said.request.seed,
        request=said.request,
        video=info,
        timings=said.timings,
        notes=said.notes,
        safety=verdict or said.safety,
        provenance=said.model_dump(mode="json"),
    )
