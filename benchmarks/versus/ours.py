"""The same video with this package, as in a user's script: a backend, a request, ``generate``.

Run as ``python -m versus.ours JOB.json VIDEO.mp4 STAGES.json``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from .job import Job
from .stages import Stages


def model_config(job: Job) -> Any:
    """The job's weights as a model of this package."""
    from hunyuan_local.config import load_model_config

    return load_model_config("tiny").model_copy(
        update={"name": Path(job.folder).name, "model_id": job.folder, "render_scale": 1.0}
    )


def make_backend(job: Job) -> Any:
    """The local backend with the job's weights, on the CPU."""
    from hunyuan_local.backends.local.backend import LocalBackend
    from hunyuan_local.config import RuntimeProfile

    others = dict.fromkeys(("vae", "text_encoder", "text_encoder_2"), "float32")
    profile = RuntimeProfile(
        name="versus",
        device="cpu",
        dtypes={"transformer": job.transformer} | others,
        compile=job.compile,
        prompt_cache=False,  # otherwise the second run would reuse the prompts of the first
    )
    return LocalBackend(model_config(job), profile)


def main() -> None:
    """Generate the video."""
    job, output, record = Job.load(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3])
    stages = Stages()
    stages.enter("import")
    import hunyuan_local.pipeline.denoise  # noqa: F401  what generate would import
    from hunyuan_local.backends.base import GenerationContext
    from hunyuan_local.schema import GenerationRequest

    stages.enter("load")
    backend = make_backend(job)
    context = GenerationContext(output, on_progress=lambda progress: stages.enter(progress.stage))
    backend.generate(GenerationRequest(**job.request), context)
    stages.enter(None)
    stages.save(record)


if __name__ == "__main__":
    main()
