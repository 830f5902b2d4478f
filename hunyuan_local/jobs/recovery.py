"""Reuses a finished video whose worker died before the job was recorded as done."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ..backends.hosted.arrival import Findings, aside_of, examine, keep_to_the_check
from ..backends.safety_check import finish_or_note, inspect_file
from ..config import SafetyConfig
from ..errors import VideoError
from ..provenance import read_provenance
from ..schema import GenerationResult
from ..video import MP4, probe
from .job import Job


def finished_before(job: Job, path: Path, safety: SafetyConfig) -> GenerationResult | None:
    """The finished video of an earlier attempt that died before the store was updated; None if there is none.

    Its frames are checked again, since the earlier attempt may not have reached the safety check.

    Raises:
        ContentBlockedError: the safety check blocks the video; the file is still there.
        UncheckedVideoError: a service generated the video and the safety check cannot run; the file is set aside.
    """
    if not path.exists():
        return None
    try:
        said = read_provenance(path)
        found = Findings(MP4, probe(path)) if said.remote is None else examine(path, safety)
    except VideoError:
        return None
    # The path is unique to this job. A service may have received a reduced request, or used another seed.
    if said.remote is not None:
        keep_to_the_check(found, safety, path, aside_of(path, job.job_id))
    elif said.request != job.request:
        return None
    elif found.info is not None:
        inspect = partial(inspect_file, safety, path, found.info.num_frames)
        found.safety = finish_or_note(inspect, safety.mode, found.notes.append)
    return GenerationResult(
        path=path,
        backend=said.backend,
        model=said.model.name or "",
        seed=said.request.seed,
        request=said.request,
        video=found.info,
        timings=said.timings,
        notes=list(dict.fromkeys([*said.notes, *found.notes])),
        safety=found.safety or said.safety,
        provenance=said.model_dump(mode="json"),
    )
