"""A stand-in that finishes tasks immediately, and benches that use it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hosted_benches import Begin, Started, scenario_file
from hosted_settings import QUICK
from standin import StandIn, sample_video

from hunyuan_local.backends.hosted.backend import HostedBackend
from hunyuan_local.backends.hosted.open_tasks import OpenTasks
from hunyuan_local.backends.hosted.wavespeed import WaveSpeedBackend
from hunyuan_local.bench.run.scenarios import ScenarioFile


@pytest.fixture
def service() -> Iterator[StandIn]:
    """A stand-in whose tasks are finished at the first poll."""
    with StandIn(sample_video(64, 48, 2), polls_until_done=0) as service:
        yield service


@pytest.fixture
def begin(starts_process: None, begin_unmade: Begin) -> Begin:
    """Starts or resumes a bench at the stand-in; its videos are probed."""
    return begin_unmade


@pytest.fixture
def begin_unmade(tmp_path: Path, service: StandIn) -> Iterator[Begin]:
    """Starts a bench at the stand-in that generates no video."""
    opened: list[HostedBackend] = []

    def begin(
        file: ScenarioFile | None = None, *kinds: type[HostedBackend], key: str = "", **options: object
    ) -> Started:
        open_tasks = OpenTasks(tmp_path / "state")
        backends = [
            kind(key or service.key, service.url, pacing=QUICK, open_tasks=open_tasks)
            for kind in kinds or [WaveSpeedBackend]
        ]
        opened.extend(backends)
        return Started(tmp_path / "bench", file or scenario_file(), backends, open_tasks, **options)

    yield begin
    for backend in opened:
        backend.close()
