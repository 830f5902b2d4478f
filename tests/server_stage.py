"""Plays the worker in the server's tests: claims, advances and finishes jobs of a real store by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from standin import sample_video

from hunyuan_local.config import load_model_config
from hunyuan_local.jobs.folder import DataFolder
from hunyuan_local.jobs.job import Job
from hunyuan_local.jobs.store import JobStore
from hunyuan_local.schema import GenerationRequest, Progress
from hunyuan_local.wires import novita, openai, wavespeed

MODEL = load_model_config("tiny")
CLIP = sample_video(64, 48, 2)
REQUEST = GenerationRequest(
    prompt="a fox", width=64, height=48, num_frames=5, num_inference_steps=10, seed=7, guidance_scale=6.0,
    flow_shift=7.0, fps=24,
)  # fmt: skip
TIMINGS = {
    "load_s": 3.0,
    "encode_s": 1.0,
    "denoise_s": 20.0,
    "denoise_steps": 10,
    "decode_s": 2.0,
    "write_s": 1.0,
    "total_s": 27.0,
}
# The path of a submission and a valid body, by dialect.
SUBMISSIONS: dict[str, tuple[str, dict[str, Any]]] = {
    wavespeed.NAME: (wavespeed.SUBMIT_PATH, {"prompt": "a fox"}),
    novita.NAME: (
        novita.SUBMIT_PATH,
        {"model_name": "hunyuan-video-fast", "width": 1280, "height": 720, "seed": -1, "steps": 30, "prompt": "a fox"},
    ),
    openai.NAME: (openai.SUBMIT_PATH, {"prompt": "a fox"}),
}


@dataclass(frozen=True)
class Stage:
    """A data folder and its store."""

    folder: DataFolder
    store: JobStore

    def queued(self, **origin: Any) -> Job:
        """A queued job."""
        given = {"dialect": "wavespeed", "base_url": "http://testserver", "inline": False} | origin
        return self.store.enqueue(REQUEST, MODEL.identity, given)

    def running(self, progress: Progress | None = None) -> Job:
        """Claim the oldest queued job, or a new one; returns it running."""
        self.store.counts().get("queued") or self.queued()
        job = self.store.claim("w", MODEL.identity, 30)
        self.store.beat(job, 30, progress)
        return self.store.get(job.job_id)

    def succeeded(self, **origin: Any) -> Job:
        """A new job with its video."""
        self.queued(**origin)
        return self.finish(self.running())

    def finish(self, job: Job) -> Job:
        """Finish a running job successfully."""
        self.folder.video(job).write_bytes(CLIP)
        request = job.request.model_dump(mode="json")
        assert self.store.succeed(job, {"seed": job.request.seed, "request": request, "timings": TIMINGS})
        return self.store.get(job.job_id)

    def failed(self, error: str = "no memory") -> Job:
        """A new job that failed."""
        self.queued()
        job = self.running()
        assert self.store.fail(job, error)
        return self.store.get(job.job_id)
