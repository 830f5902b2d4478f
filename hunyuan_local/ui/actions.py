"""The actions of the page: submit, watch, cancel and delete videos, browse old ones, reuse their settings.

All state comes from the job store, so neither a page reload nor a server restart loses any of it. Independent of
Gradio and HTML. All methods block on disk access; do not call them in an event loop's thread.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..backends.local.profile_choice import AUTO
from ..config import ModelConfig, load_model_config, profile_names
from ..errors import FieldProblem, InvalidRequestError
from ..images import DEFAULT_FIT
from ..jobs.eta import RECENT_JOBS
from ..jobs.housekeeping import discard
from ..jobs.job import Job
from ..schema import GenerationRequest, JobView
from ..server.error_answers import UnknownJobError, VideoNotReadyError
from ..server.service import VideoService
from ..weights.cache import find_here
from ..wires import openai
from ..wires.base import Submission
from .form import NAMES, Fields, read_request, write_fields
from .input_images import PageImages
from .plan_summary import Outlook, Planner, mode_names, this_machine
from .snippets import Snippet, write_snippets

PAGE_SIZE = 12
_MOST_QUEUED = 1000


@dataclass(frozen=True)
class Shown:
    """One job as the page shows it.

    Attributes:
        view: its state: percent, seconds left, safety verdict.
        request: the submitted request; for a finished job, the one that was used, with the prompt as rewritten.
        model: the name of its model; its identity if this server does not have the model.
        profile: the profile chosen for it; empty for the server's own.
        ahead: while it waits, the number of jobs before it.
        trouble: while it waits, why no worker can take it now; empty if one can.
        preview: while it runs, the version of its preview; None without a preview.
    """

    job: Job
    view: JobView
    request: GenerationRequest
    model: str
    profile: str
    ahead: int = 0
    trouble: str = ""
    preview: int | None = None


class Studio:
    """The page's side of one server's jobs."""

    def __init__(self, service: VideoService):
        self.service = service
        self.own = service.config.model
        self.images = PageImages(service)
        self._planner = Planner(self.load_model, lambda: this_machine())

    # The form

    def model_choices(self) -> list[str]:
        """Model names, the server's own first; others only if its workers can switch models."""
        return [self.own.name, *self.service.config.models]

    def profile_choices(self, modes: tuple[str, ...]) -> list[tuple[str, str]]:
        """(label, name) of the profiles and of the modes that fit; the empty name is the server's own profile."""
        own = (f"the server's own ({self._own_profile})", "")
        if not self.service.config.models:  # its workers keep their profile
            return [own]
        return [own, *((name, name) for name in (AUTO, *profile_names(), *modes))]

    def load_model(self, name: str) -> ModelConfig:
        """The config of one of :meth:`model_choices`.

        Raises:
            InvalidRequestError: another name: user input must not open arbitrary paths.
        """
        if name == self.own.name:
            return self.own
        if name not in self.model_choices():
            raise _refusal("model", name, self.model_choices())
        return load_model_config(name)

    def first_fields(self) -> dict[str, str]:
        """The initial field texts."""
        name = self.own.name
        chosen = {"size": self.defaults(name)["size"], "rewrite": self.service.config.rewrite or "off"}
        return dict.fromkeys(NAMES, "") | {"model": name, "image_fit": DEFAULT_FIT} | chosen

    def defaults(self, model: str) -> dict[str, str]:
        """The model's defaults for empty fields, as texts; no size if it depends on the image."""
        config = self.load_model(model)
        request = GenerationRequest(prompt="any").with_defaults(dict(config.defaults))
        size = {"size": ""} if config.image_sizes else {}
        return write_fields(request, model, "") | {"seed": "random", "true_cfg_scale": "1"} | size

    def outlook(self, fields: Fields) -> Outlook:
        """The plan's outlook for the form; the prompt may still be empty.

        Raises:
            InvalidRequestError: a field is invalid.
        """
        model, profile = self._choices(fields)
        prompt = fields.get("prompt") or ""
        request = self._read({**fields, "prompt": prompt if prompt.strip() else "any"})
        recent = self.service.store.find(statuses=["succeeded"], limit=RECENT_JOBS)
        alike = [job for job in recent if self._maker_of(job) == (model, profile)]
        found = self._planner.look_ahead(request, model, profile or self._own_profile, alike)
        if model != self.own.name and find_here(self.load_model(model)) is None:
            missing = f"The weights are not on this machine; run 'hunyuan-local download {model}' to fetch them."
            found = replace(found, verdict="no", says=(missing, *found.says))
        return found

    def snippets(self, fields: Fields, base_url: str) -> list[Snippet]:
        """The form's request as code.

        Raises:
            InvalidRequestError: a field is invalid.
        """
        model, profile = self._choices(fields)
        with_key = bool(self.service.config.api_keys)
        profile = profile or self.service.config.profile or ""
        return write_snippets(
            self._read(fields), base_url=base_url, with_key=with_key, model=self.load_model(model), profile=profile
        )

    def submit(self, fields: Fields) -> Job:
        """Enqueue a job; it is on disk when this returns.

        Raises:
            InvalidRequestError: a field is invalid.
            HunyuanLocalError: see :meth:`VideoService.submit`.
        """
        model, profile = self._choices(fields)
        return self.service.submit(openai.NAME, Submission(self._read(fields)), "", model, profile or None)

    def take_over(self, job_id: str) -> dict[str, str]:
        """The field texts that request a job's video again.

        Raises:
            UnknownJobError: there is no job with this id.
        """
        shown = self.show(job_id)
        model = shown.model if shown.model in self.model_choices() else self.own.name
        offered = [name for _, name in self.profile_choices(tuple(mode_names()))]
        profile = shown.profile if shown.profile in offered else ""
        return write_fields(shown.request, model, profile) | {"rewrite": shown.request.rewrite or "off"}

    def _choices(self, fields: Fields) -> tuple[str, str]:
        """The selected model and profile, validated."""
        model, profile = fields.get("model") or self.own.name, fields.get("profile") or ""
        if model not in self.model_choices():
            raise _refusal("model", model, self.model_choices())
        profiles = [name for _, name in self.profile_choices(tuple(mode_names()))]
        if profile not in profiles:  # user input must not open arbitrary paths
            raise _refusal("profile", profile, profiles[1:] or ["the server's own"])
        return model, profile

    def _read(self, fields: Fields) -> GenerationRequest:
        """The form's request, without what its model does not take, and without "off" and "cover" where they are the
        default."""
        unsaid = set()
        if fields.get("rewrite") == "off" and self.service.config.rewrite in (None, "off"):
            unsaid.add("rewrite")
        if not self.load_model(fields.get("model") or self.own.name).takes_image:
            unsaid |= {"image", "image_fit"}  # the page hides them
        elif not fields.get("image") or fields.get("image_fit") == DEFAULT_FIT:
            unsaid.add("image_fit")
        given = {name: text for name, text in fields.items() if name not in unsaid}
        return read_request(given, self.images.find)

    @property
    def _own_profile(self) -> str:
        return self.service.config.profile or AUTO

    # Jobs

    def newest(self) -> str | None:
        """The id of the job to show first: a running one, else the next waiting one, else the newest one."""
        store = self.service.store
        for jobs in (
            store.find(statuses=["running"], limit=1),
            store.find(statuses=["queued"], oldest_first=True, limit=1),
            store.find(limit=1),
        ):
            if jobs:
                return jobs[0].job_id
        return None

    def show(self, job_id: str) -> Shown:
        """A job in its current state.

        Raises:
            UnknownJobError: there is no job with this id.
        """
        job = self.service.get(job_id)
        made = (job.result or {}).get("request")
        model, profile = self._maker_of(job)
        return Shown(
            job=job,
            view=self.service.view(job, "", "path"),
            request=job.request if made is None else GenerationRequest(**made),
            model=model,
            profile=profile,
            ahead=self._ahead_of(job),
            trouble=self._trouble_of(job),
            preview=self._preview_version(job),
        )

    def history(self, page: int) -> tuple[list[Job], bool]:
        """The jobs of one gallery page (from 0), newest first, and whether there are older ones."""
        jobs = self.service.store.find(limit=PAGE_SIZE + 1, offset=page * PAGE_SIZE)
        return jobs[:PAGE_SIZE], len(jobs) > PAGE_SIZE

    def unfinished(self) -> int:
        """Number of waiting and running jobs."""
        counts = self.service.store.counts()
        return counts.get("queued", 0) + counts.get("running", 0)

    def cancel(self, job_id: str) -> None:
        """Cancel a job; one that has ended meanwhile keeps its state and its video.

        Raises:
            UnknownJobError: there is no job with this id.
        """
        if self.service.store.cancel(job_id) is None:
            raise UnknownJobError(job_id)

    def delete(self, job_id: str) -> None:
        """Delete a finished job and its video.

        Raises:
            UnknownJobError: there is no job with this id.
            VideoNotReadyError: the job is not finished.
        """
        job = self.service.get(job_id)
        if not job.is_finished:
            raise VideoNotReadyError(f"job {job_id} is not finished; cancel it first")
        discard(self.service.folder, self.service.store, job)

    def preview(self, job_id: str) -> bytes:
        """The preview of an unfinished video as PNG bytes; read here, since the worker may replace the file any time.

        Raises:
            UnknownJobError: there is no job with this id.
            VideoNotReadyError: the job has no preview.
        """
        try:
            return self.service.folder.preview(self.service.get(job_id)).read_bytes()
        except FileNotFoundError:
            raise VideoNotReadyError(f"job {job_id} has no preview") from None

    def _preview_version(self, job: Job) -> int | None:
        if job.status != "running" or job.progress is None:
            return None
        try:
            written = self.service.folder.preview(job).stat().st_mtime
        except FileNotFoundError:
            return None
        # Ignore a preview left by an earlier attempt.
        return round(written * 1000) if job.started_at is None or written >= job.started_at else None

    def _ahead_of(self, job: Job) -> int:
        if job.status != "queued":
            return 0
        unfinished = self.service.store.find(statuses=["queued", "running"], oldest_first=True, limit=_MOST_QUEUED)
        return sum(other.number < job.number for other in unfinished)

    def _trouble_of(self, job: Job) -> str:
        config = self.service.config
        if job.status != "queued" or (job.model != config.model.identity and not config.models):
            return ""
        reports = self.service.store.worker_reports.recent()
        if reports and all(report.state == "loading" for report in reports):
            return "the model is loading"
        return "; ".join(self.service.problems())

    def _maker_of(self, job: Job) -> tuple[str, str]:
        """The names of a job's model and chosen profile. For another server's model, its identity; for the server's own
        profile, an empty text."""
        model_workers = job.origin.get("crew")
        if model_workers is not None:
            return model_workers["model"], model_workers["profile"] or ""
        return (self.own.name if job.model == self.own.identity else job.model), ""


def _refusal(field: str, value: str, allowed: list[str]) -> InvalidRequestError:
    return InvalidRequestError([FieldProblem(field, value, f"must be one of {', '.join(allowed)}")])
