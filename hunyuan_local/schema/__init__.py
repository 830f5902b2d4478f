"""Data types shared by all layers: request, result, progress, timings and job state.

They know nothing about models, devices or wire formats.
"""

from .job import FailureKind, JobStatus, JobView
from .request import (
    MAX_FRAMES,
    MAX_SEED,
    MAX_SIDE,
    SIZE_MULTIPLE,
    TEMPORAL_COMPRESSION,
    GenerationRequest,
    RewriteMode,
    field_limits,
    parse_size,
)
from .result import (
    MAX_EXACT_SEED,
    GenerationResult,
    Progress,
    SafetyVerdict,
    SeedTeller,
    Stage,
    Timings,
    VideoInfo,
    seed_text,
)

__all__ = [
    "MAX_EXACT_SEED",
    "MAX_FRAMES",
    "MAX_SEED",
    "MAX_SIDE",
    "SIZE_MULTIPLE",
    "TEMPORAL_COMPRESSION",
    "FailureKind",
    "GenerationRequest",
    "GenerationResult",
    "JobStatus",
    "JobView",
    "Progress",
    "RewriteMode",
    "SafetyVerdict",
    "SeedTeller",
    "Stage",
    "Timings",
    "VideoInfo",
    "field_limits",
    "parse_size",
    "seed_text",
]
