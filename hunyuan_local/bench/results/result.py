"""The result file of a bench: the machine, the targets, and every run as a row, including failed ones.

It is one JSON file, from which an interrupted bench resumes. It contains only raw data: statistics are computed from
the rows when needed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from ...durable import replacing
from ...errors import ConfigError, HunyuanLocalError
from ...json_text import json_text
from ...schema import GenerationRequest, SeedTeller, VideoInfo

FORMAT: Final = "hunyuan-local-bench/1"
# Start of the note on a measured run whose time and memory include loading. Saved results contain it: do not change.
LOADED = "the model was loaded in this run, which its time and memory hold"


class Stages(BaseModel):
    """Seconds per stage of one run; None for stages that the backend does not have or does not report.

    ``load_s`` lasts until the model is ready: the choice of a profile, and loading unless the model is already loaded.
    ``queue_s``, ``run_s`` and ``poll_s`` belong to services: waiting in the queue, computing, and the delay until
    polling noticed the end. ``write_s`` is the time to finish the file after the last frame. ``total_s`` is the whole
    call, up to the finished file; it also includes the time between the stages.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    load_s: float | None = None
    encode_s: float | None = None
    denoise_s: float | None = None
    decode_s: float | None = None
    write_s: float | None = None
    submit_s: float | None = None
    queue_s: float | None = None
    run_s: float | None = None
    poll_s: float | None = None
    download_s: float | None = None
    total_s: float | None = None


class BenchRun(SeedTeller, BaseModel):
    """One run, successful or not.

    Attributes:
        backend: label of its :class:`Target`.
        scenario: name of its scenario in the scenario file.
        request: the request, one of the scenario's combinations.
        repeat: counted from 0, separately for warm-ups.
        kind: statistics exclude ``warmup`` runs.
        status: ``interrupted`` means resumed after the bench was stopped, so that the times are meaningless. Such
            runs are counted, but like failed ones excluded from statistics.
        error: error message; empty if the run did not fail.
        error_kind: class of the error.
        started_at: ISO 8601 with a time zone.
        made: the request as generated, with all defaults and the seed; None if the run failed.
        losses: fields that the backend dropped or changed, as ``allow_loss`` permits.
        notes: notes of the backend and of the bench.
        stages: seconds per stage.
        seconds_per_step: denoising time divided by its steps for local videos; for services the run time divided by
            the requested steps, which includes all other work of the service.
        peak_memory_bytes: peak memory of the run.
        memory_of: what the peak measures: ``gpu`` (this process's share of the device) or ``process`` (resident memory
            of the process that generated the video).
        cost_usd: cost of this video; ``cost_source`` explains it.
        video: properties of the file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: str
    scenario: str
    request: GenerationRequest
    repeat: int
    kind: Literal["warmup", "measured"] = "measured"
    status: Literal["succeeded", "failed", "interrupted"]
    error: str = ""
    error_kind: str = ""
    started_at: str
    made: GenerationRequest | None = None
    losses: list[str] = []
    notes: list[str] = []
    stages: Stages = Stages()
    seconds_per_step: float | None = None
    peak_memory_bytes: int | None = None
    memory_of: Literal["gpu", "process"] | None = None
    cost_usd: float | None = None
    cost_source: str = ""
    video: VideoInfo | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_seed_text(cls, fields: Any) -> Any:
        """Drop ``seed_text``, which the JSON contains in addition to the fields."""
        return {name: fields[name] for name in fields if name != "seed_text"} if isinstance(fields, dict) else fields

    @property
    def told_seed(self) -> int | None:
        """The seed used, or the requested one if the run failed."""
        return (self.made or self.request).seed

    @property
    def counts(self) -> bool:
        """Whether statistics include the run."""
        return self.kind == "measured" and self.status == "succeeded"


class Target(BaseModel):
    """One backend of a bench, and where its rows come from.

    Attributes:
        label: unique in the bench, such as ``local``, ``wavespeed`` or ``wavespeed at http://127.0.0.1:8000``.
        backend: name of the backend in the registry.
        origin: origin of its numbers for the report, such as "measured on this machine" or "a server at
            http://127.0.0.1:8000 in WaveSpeed's format, not the service".
        base_url: base URL of a hosted backend; None for the local one.
        is_billed: whether a run costs money.
        identity: identity of the model or the service, which must stay the same to resume a bench.
        device, profile, model: what generated the videos; None for hosted backends.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    backend: str
    origin: str
    base_url: str | None = None
    is_billed: bool = False
    identity: str
    device: str | None = None
    profile: str | None = None
    model: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether this machine generates the videos."""
        return self.base_url is None


class BenchResult(BaseModel):
    """The result of a bench.

    Attributes:
        name: name in the scenario file.
        created_at, finished_at: start and end in ISO 8601; ``finished_at`` is None until the bench is complete.
        machine: the machine card from :mod:`..results.machine_card`.
        scenarios: content of the scenario file, defaults included.
        repeats: runs per request and target.
        targets: the targets.
        runs: the rows, in order of execution.
        is_complete: whether every planned run has a row.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal["hunyuan-local-bench/1"] = FORMAT
    name: str
    created_at: str
    finished_at: str | None = None
    machine: dict[str, Any]
    scenarios: dict[str, Any]
    repeats: int
    targets: list[Target]
    runs: list[BenchRun] = []
    is_complete: bool = False

    def save(self, path: Path) -> None:
        """Write the file atomically.

        Raises:
            ConfigError: the file cannot be written.
        """
        try:
            with replacing(path) as partial:
                partial.write_text(json_text(self, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{path}: the result of the bench cannot be written: {error}; check the disk") from error


def load_result(path: Path) -> BenchResult:
    """Read a file written by :meth:`BenchResult.save`.

    Raises:
        ConfigError: the file does not exist, is damaged, or is not the result of a bench.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, json.JSONDecodeError):
        fields = None
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise ConfigError(f"{path}: not the result of a bench; give a result.json written by 'hunyuan-local bench'")
    try:
        return BenchResult.model_validate_json(json.dumps(fields))
    except ValidationError as error:
        places = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:3]]
        raise ConfigError(f"{path}: damaged result of a bench: {'; '.join(places)}") from error
    except HunyuanLocalError as error:  # from validating a request
        raise ConfigError(f"{path}: damaged result of a bench: {error}") from error
