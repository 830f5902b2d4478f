"""What a bench writes down: the machine, the backends, and every run as a row, the failed ones too.

One JSON file, which is also what an interrupted bench goes on from. Nothing in it is derived: statistics are
made from the rows when they are wanted. Knows nothing about how runs are made.
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
# How the note of a measured run begins whose time and memory hold the loading of the model.
LOADED = "the model was loaded in this run, which its time and memory hold"


class Stages(BaseModel):
    """Seconds of one run; None is a stage that this backend does not have, or does not tell.

    ``load_s`` is all until the model is there: the choice of a profile, and loading unless it is loaded already.
    ``queue_s``, ``run_s`` and ``poll_s`` are a service's: waiting there, its computation, and from its end until that
    was seen here. ``write_s`` is what remained to be written after the last frame. ``total_s`` is the whole run as its
    caller sees it, from the call to the finished file, and more than the sum of the stages by what is between them.
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
    """One run, whatever became of it.

    Attributes:
        backend: the label of a :class:`Target`.
        scenario: its name in the scenario file; ``request`` is one of those it stands for.
        repeat: counted from 0; a warm-up counts on its own.
        kind: ``warmup`` runs are kept apart and in no statistics.
        status: ``interrupted`` is a run that was taken up again after the bench had been stopped, so that its
            times say nothing; like a failed one it is in no statistics, and counted.
        error: why it failed, in words; empty where it did not.
        error_kind: the class of the error.
        started_at: with a time zone.
        made: the request as it was made, with all defaults and the seed; None if it was not.
        losses: what the backend left out or changed of the request, with permission.
        stages: seconds.
        seconds_per_step: denoising over its steps here; at a service its running over the steps that were asked
            for, which holds everything that the service does in between.
        peak_memory_bytes: the most that the run took, ``memory_of`` says of what: ``gpu`` (of the device, this
            process's share) or ``process`` (resident, of the process that made it).
        cost_usd: of this one video; ``cost_source`` says how it was found.
        video: what the file holds.
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
        """What was written beside the fields is not one of them."""
        return {name: fields[name] for name in fields if name != "seed_text"} if isinstance(fields, dict) else fields

    @property
    def told_seed(self) -> int | None:
        """The seed that was used, or that was asked for."""
        return (self.made or self.request).seed

    @property
    def counts(self) -> bool:
        """Whether it belongs into statistics."""
        return self.kind == "measured" and self.status == "succeeded"


class Target(BaseModel):
    """One backend of a bench, and where its rows come from.

    Attributes:
        label: unique in the bench, such as ``local``, ``wavespeed`` or ``wavespeed at http://127.0.0.1:8000``.
        backend: its name in the registry.
        origin: where its figures come from, in a sentence for the report, such as "measured on this machine" or
            "a server at http://127.0.0.1:8000 in WaveSpeed's format, not the service".
        base_url: of a service.
        is_billed: whether a run costs money.
        identity: of the model or the service: what must be the same for a bench to go on.
        device, profile, model: what made the videos, in words; None at a service.
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
        """Whether this machine makes the videos."""
        return self.base_url is None


class BenchResult(BaseModel):
    """A whole bench.

    Attributes:
        name: of the scenario file.
        machine: the card of :mod:`..results.machine_card`.
        scenarios: the scenario file as it was read, defaults included.
        repeats: of each request at each target.
        targets, runs: the rows, in the order in which they were made.
        is_complete: whether every run of the plan has a row.
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
        """Write it, whole or not at all.

        Raises:
            ConfigError: the file cannot be written.
        """
        try:
            with replacing(path) as partial:
                partial.write_text(json_text(self, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{path}: the bench cannot be written: {error}; check the disk") from error


def load_result(path: Path) -> BenchResult:
    """Read what :meth:`BenchResult.save` has written.

    Raises:
        ConfigError: it is not there, or not the result of a bench.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, json.JSONDecodeError):
        fields = None
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise ConfigError(f"{path}: is not the result of a bench; give a result.json that 'hunyuan-local bench' wrote")
    try:
        return BenchResult.model_validate_json(json.dumps(fields))
    except ValidationError as error:
        places = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:3]]
        raise ConfigError(f"{path}: the result of a bench, but damaged: {'; '.join(places)}") from error
    except HunyuanLocalError as error:  # of a request
        raise ConfigError(f"{path}: the result of a bench, but damaged: {error}") from error
