"""Prometheus metrics of one server, collected from the store on each scrape.

The work is done in other processes, so each scrape adds the jobs finished since the last one to the histograms. Jobs
that finished before the server started, or were deleted before a scrape, are missing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import get_args

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..jobs.folder import DataFolder
from ..jobs.job import Job
from ..jobs.store import JobStore
from ..jobs.worker_reports import WorkerReport
from ..schema import JobStatus

_STAGES = ("load", "encode", "denoise", "decode", "write", "total")
_STAGE_BUCKETS_S = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_STEP_BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120)
# A row may become visible this much later than its finished_at.
_OVERLAP_S = 10.0


class Metrics:
    """The metrics registry of one app.

    Args:
        page: number of finished jobs to read at a time.
    """

    def __init__(self, folder: DataFolder, store: JobStore, page: int = 500):
        self._store, self._page = store, page
        self._lock = threading.Lock()
        self._looked_at = store.database.clock()
        self._seen: dict[str, float] = {}
        self._registry = CollectorRegistry()
        self._registry.register(_Now(folder, store))
        self._stages = Histogram(
            "hunyuan_local_stage_seconds",
            "Seconds per stage of succeeded jobs; load is 0 if the model was already loaded.",
            ["stage"],
            buckets=_STAGE_BUCKETS_S,
            registry=self._registry,
        )
        self._steps = Histogram(
            "hunyuan_local_step_seconds",
            "Mean seconds per denoising step of jobs that succeeded without interruption.",
            buckets=_STEP_BUCKETS_S,
            registry=self._registry,
        )
        self._begin = self._looked_at

    def render(self) -> bytes:
        """All metrics in the Prometheus text format.

        Raises:
            StoreError: the store cannot be used.
        """
        with self._lock:
            self._add_finished()
            return generate_latest(self._registry)

    def _add_finished(self) -> None:
        since = max(self._begin, self._looked_at - _OVERLAP_S)
        now = self._store.database.clock()
        fresh = [job for job in self._finished_after(since) if job.job_id not in self._seen]
        for job in fresh:
            self._observe(job)
        self._looked_at = now
        self._seen |= {job.job_id: job.finished_at for job in fresh if job.finished_at is not None}
        self._seen = {job_id: at for job_id, at in self._seen.items() if at >= now - 2 * _OVERLAP_S}

    def _finished_after(self, since: float) -> Iterator[Job]:
        offset = 0
        while jobs := self._store.find(statuses=["succeeded"], finished_after=since, limit=self._page, offset=offset):
            yield from jobs
            offset += len(jobs)

    def _observe(self, job: Job) -> None:
        timings = (job.result or {}).get("timings", {})
        for stage in _STAGES:
            self._stages.labels(stage).observe(timings.get(f"{stage}_s", 0.0))
        if steps := timings.get("denoise_steps"):
            self._steps.observe(timings["denoise_s"] / steps)


class _Now(Collector):
    """Gauges that are read at the time of the scrape."""

    def __init__(self, folder: DataFolder, store: JobStore):
        self._folder, self._store = folder, store
        self._worker_reports = store.worker_reports

    def collect(self) -> Iterator[Metric]:
        """Gauges of jobs, disk and workers."""
        counts = self._store.counts()
        jobs = GaugeMetricFamily("hunyuan_local_jobs", "Jobs in the store.", labels=["status"])
        for status in get_args(JobStatus):
            jobs.add_metric([status], counts.get(status, 0))
        yield jobs
        yield GaugeMetricFamily("hunyuan_local_queue_depth", "Waiting jobs.", counts.get("queued", 0))
        yield GaugeMetricFamily("hunyuan_local_disk_free_bytes", "Free disk space.", self._folder.free_bytes())
        yield from _worker_metrics(self._worker_reports.recent())


def _worker_metrics(workers: list[WorkerReport]) -> Iterator[Metric]:
    state = GaugeMetricFamily("hunyuan_local_worker_state", "1 for a worker's state.", labels=["worker", "state"])
    peak = GaugeMetricFamily(
        "hunyuan_local_worker_memory_peak_bytes", "Peak memory of the device since its start.", labels=["worker"]
    )
    total = GaugeMetricFamily("hunyuan_local_worker_memory_total_bytes", "Memory of the device.", labels=["worker"])
    for worker in workers:
        for word in get_args(WorkerReport.model_fields["state"].annotation):
            state.add_metric([worker.name, word], int(word == worker.state))
        for family, value in ((peak, worker.memory_bytes), (total, worker.memory_total_bytes)):
            if value is not None:
                family.add_metric([worker.name], value)
    yield from (state, peak, total)
