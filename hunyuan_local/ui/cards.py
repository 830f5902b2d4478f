"""Renders the parts of the page as HTML: jobs, gallery, outlook, errors, code snippets.

All user input is escaped. Buttons name their action in ``data-act``, which the page's script forwards. Gradio merges
updates into the page element by element, so the elements of one state keep their order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from ..durations import in_words
from ..jobs.job import Job
from ..schema import GenerationRequest, JobStatus
from . import image_field
from .actions import Shown
from .plan_summary import Outlook
from .snippets import Snippet

_WORDS: dict[JobStatus, str] = {
    "queued": "Waiting", "running": "Running", "succeeded": "Done", "failed": "Failed", "canceled": "Cancelled",
}  # fmt: skip
_STAGES = {
    "rewrite": "Rewriting the prompt",
    "load": "Loading the model",
    "encode": "Reading the prompt",
    "denoise": "Denoising",
    "decode": "Decoding",
    "write": "Writing the file",
}
_LONG_ROWS = ("Image", "Negative prompt", "Safety check", "Notes")
_ANNOUNCED_PERCENT = 25  # screen readers announce progress in these steps, not every denoising step


def empty_stage() -> str:
    """The placeholder before the first video."""
    return _stage("No video yet.", '<p class="hl-empty">Your video will appear here.</p>', "")


def stage(shown: Shown) -> str:
    """A job: its video or preview, status, actions and settings."""
    job = shown.job
    if job.status == "succeeded":
        picture = _video(shown)
    elif shown.preview is not None:
        source = f"preview/{job.job_id}.png?version={shown.preview}"
        picture = f'<img class="hl-preview" src="{source}" alt="Preview of the unfinished video: frames side by side">'
    else:
        picture = f'<p class="hl-empty">{escape(_WORDS[job.status])}</p>'
    below = _progress(shown) if not job.is_finished else _end(shown)
    return _stage(_announcement(shown), picture, f"{below}{_prompt_block(shown)}{_settings(shown)}", shown.request)


def gallery(jobs: Sequence[Job], page: int, more: bool, watched: str | None, now: float) -> str:
    """One page of the gallery: jobs as buttons, and buttons for the adjacent pages.

    Args:
        now: seconds since 1970.
    """
    if not jobs and page == 0:
        return '<p class="hl-empty">No videos yet.</p>'
    cards = "".join(f"<li>{_card(job, job.job_id == watched, now)}</li>" for job in jobs)
    pages = ""
    if page or more:
        newer, older = _button("Newer", "newer", disabled=page == 0), _button("Older", "older", disabled=not more)
        pages = f'<nav class="hl-actions" aria-label="Pages">{newer}{older}</nav>'
    return f'<ul class="hl-gallery">{cards}</ul>{pages}'


def outlook(found: Outlook) -> str:
    """The plan's outlook for the form."""
    says = "".join(f"<p>{escape(text)}</p>" for text in found.says)
    return f'<div class="hl-outlook hl-{found.verdict}">{says}</div>'


def notes(found: Outlook) -> str:
    """Notes on the model."""
    return "".join(f'<p class="hl-note">{escape(_sentence(text))}</p>' for text in found.notes)


def impossible(texts: Iterable[str]) -> str:
    """The reasons why the form's current values are invalid, instead of an outlook."""
    return f'<div class="hl-outlook hl-no">{"".join(f"<p>{escape(text)}</p>" for text in texts)}</div>'


def problems(texts: Sequence[str]) -> str:
    """Error messages; empty without any."""
    if not texts:
        return ""
    return f'<div class="hl-problems" role="alert">{"".join(f"<p>{escape(text)}</p>" for text in texts)}</div>'


def snippets(found: Iterable[Snippet]) -> str:
    """Code snippets, each with the settings that it cannot express."""
    return "".join(_snippet(snippet) for snippet in found)


def file_name(request: GenerationRequest) -> str:
    """A file name for downloads, from the prompt and the seed."""
    words = re.findall(r"[a-z0-9]+", request.prompt.lower())
    return f"{'-'.join(words)[:60].strip('-') or 'video'}-{request.seed}.mp4"


def _stage(announcement: str, picture: str, below: str, request: GenerationRequest | None = None) -> str:
    shape = "" if request is None else f' style="--hl-ratio: {request.width} / {request.height}"'
    return (
        f'<section class="hl-stage" aria-label="Video"{shape}>'
        f'<p class="hl-unseen" role="status">{escape(announcement)}</p>'
        f'<div class="hl-frame">{picture}</div>{below}</section>'
    )


def _video(shown: Shown) -> str:
    job_id, request = shown.job.job_id, shown.request
    return (
        f'<video controls loop muted playsinline preload="metadata" src="video/{job_id}.mp4" '
        f'poster="poster/{job_id}.jpg" width="{request.width}" height="{request.height}" '
        f'aria-label="{escape(_clip(request.prompt, 200))}"></video>'
    )


def _announcement(shown: Shown) -> str:
    """The text for screen readers; changes rarely, and only with the status or in large progress steps."""
    job, percent = shown.job, shown.view.progress_percent or 0
    if job.is_finished:
        return f"{_word(job)}."  # the error has its own alert
    if job.status == "queued":
        return _place(shown)
    done = percent // _ANNOUNCED_PERCENT * _ANNOUNCED_PERCENT
    return f"Running, {done} percent done." if done else "Running."


def _progress(shown: Shown) -> str:
    job, percent = shown.job, shown.view.progress_percent or 0
    if job.status == "queued":
        text = f"Waiting: {shown.trouble}." if shown.trouble else _place(shown)
    elif job.cancel_requested:
        text = "Cancelling after the current step."
    else:
        text = _doing(job)
    if shown.view.eta_s is not None and not job.cancel_requested:
        text += f" About {in_words(shown.view.eta_s)} left."
    cancel = _button("Cancel", "cancel", job.job_id, disabled=job.cancel_requested)
    return (
        f'<p class="hl-state">{_badge(job)}<span id="hl-progress-text">{escape(text)}</span></p>'
        f'<div class="hl-bar" role="progressbar" aria-label="Progress" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{percent}"><div style="width: {percent}%"></div></div>'
        f'<div class="hl-actions">{cancel}</div>'
    )


def _doing(job: Job) -> str:
    progress = job.progress
    if progress is None:
        return "Starting."
    if progress.stage == "denoise" and progress.total:
        return f"Step {progress.step} of {progress.total}."
    return f"{_STAGES.get(progress.stage, progress.stage)}."


def _place(shown: Shown) -> str:
    if shown.ahead == 0:
        return "Next in the queue."
    return f"In the queue behind {shown.ahead} other{'s' if shown.ahead > 1 else ''}."


def _end(shown: Shown) -> str:
    """A finished job: its result and actions. Uses other element types than a running job, so updates never mix."""
    job = shown.job
    took = shown.view.inference_s
    text = f"Generated in {in_words(took)}." if job.status == "succeeded" and took is not None else ""
    failed = ""
    if job.status == "failed":
        failed = f'<div class="hl-problems" role="alert"><p>{escape(_sentence(job.error))}</p></div>'
    download = ""
    if job.status == "succeeded":
        name = escape(file_name(shown.request))
        download = f'<a class="hl-button" href="video/{job.job_id}.mp4" download="{name}">Download</a>'
    again = _button("Reuse settings", "take-over", job.job_id)
    delete = _button("Delete", "delete", job.job_id, confirm="Delete this video and its record?")
    return (
        f'<p class="hl-state">{_badge(job)}<span>{escape(text)}</span></p>{failed}'
        f'<menu class="hl-actions"><li>{again}</li><li>{download}</li><li>{delete}</li></menu>'
    )


def _prompt_block(shown: Shown) -> str:
    request = shown.request
    rewritten = ""
    if request.original_prompt is not None:
        same = request.original_prompt == request.prompt
        text = "Rewriting left the prompt unchanged" if same else f"Rewritten from: {escape(request.original_prompt)}"
        rewritten = f'<p class="hl-note">{text}</p>'
    return f'<blockquote class="hl-prompt"><p>{escape(request.prompt)}</p>{rewritten}</blockquote>'


def _settings(shown: Shown) -> str:
    request, result = shown.request, shown.job.result or {}
    rows = {
        "Image": image_field.settings(request),
        "Size": f"{request.width} x {request.height}",
        "Frames": f"{request.num_frames} at {request.fps} fps",
        "Steps": request.num_inference_steps,
        "Seed": request.seed,
        "Guidance": _number(request.guidance_scale),
        "Flow shift": _number(request.flow_shift),
        "Negative prompt": request.negative_prompt,
        "True CFG": _number(request.true_cfg_scale) if request.true_cfg_scale > 1 else None,
        "Model": shown.model,
        "Profile": shown.profile or None,
        "Rewriting": request.rewrite if request.rewrite != "off" else None,
        "Safety check": _safety(result.get("safety")),
        "Notes": " ".join(_sentence(note) for note in result.get("notes", [])) or None,
    }
    parts = (_row(name, str(value)) for name, value in rows.items() if value is not None)
    image = "" if request.image is None else image_field.thumbnail(request.image)
    return f'{image}<dl class="hl-settings">{"".join(parts)}</dl>'


def _row(name: str, value: str) -> str:
    is_long = ' class="hl-long"' if name in _LONG_ROWS else ""
    return f"<div{is_long}><dt>{name}</dt><dd>{escape(value)}</dd></div>"


def _safety(verdict: dict[str, Any] | None) -> str | None:
    if verdict is None:
        return None
    what = f"{verdict['label']} {verdict['score']:.2f} at frame {verdict['frame']}"
    if verdict["flagged"]:
        return f"flagged: {what}, threshold {verdict['threshold']:.2f}"
    return f"not flagged: at most {what}, {verdict['frames']} frames checked"


def _card(job: Job, is_watched: bool, now: float) -> str:
    picture = '<span class="hl-none"></span>'
    if job.status == "succeeded":
        picture = f'<img loading="lazy" src="poster/{job.job_id}.jpg" alt="">'
    elif job.request.image is not None:
        picture = f'<img loading="lazy" src="image/{job.request.image.sha256}.jpg" alt="">'
    about_it = (
        f"{job.request.width}x{job.request.height}, {job.request.num_frames} frames, "
        f"{'' if job.request.image is None else 'from an image, '}{_ago(now - job.created_at)}"
    )
    current = ' aria-current="true"' if is_watched else ""
    return (
        f'<button type="button" class="hl-card" data-act="open" data-job="{job.job_id}"{current}>'
        f'<span class="hl-thumb">{picture}</span><span class="hl-words">{escape(_clip(job.request.prompt, 120))}</span>'
        f'<span class="hl-note">{_badge(job)} {escape(about_it)}</span></button>'
    )


def _snippet(snippet: Snippet) -> str:
    losses = "".join(f"<li>{escape(text)}</li>" for text in snippet.losses)
    if losses:
        losses = f'<p class="hl-note">This format does not support:</p><ul class="hl-note">{losses}</ul>'
    code = ""
    if snippet.text:
        code = (
            f'<div class="hl-code"><button type="button" class="hl-button" data-copy="next" '
            f'aria-label="Copy: {escape(snippet.title)}">Copy</button>'
            f'<pre tabindex="0" aria-label="{escape(snippet.title)}"><code>{escape(snippet.text)}</code></pre></div>'
        )
    return f'<section class="hl-snippet"><h3>{escape(snippet.title)}</h3>{code}{losses}</section>'


def _button(label: str, act: str, job_id: str = "", *, disabled: bool = False, confirm: str = "") -> str:
    more = f' data-job="{job_id}"' if job_id else ""
    more += f' data-confirm="{escape(confirm)}"' if confirm else ""
    more += " disabled" if disabled else ""
    return f'<button type="button" class="hl-button" data-act="{act}"{more}>{escape(label)}</button>'


def _badge(job: Job) -> str:
    return f'<span class="hl-badge hl-{job.status}">{_word(job)}</span>'


def _word(job: Job) -> str:
    return "Withheld" if job.failure == "moderation" else _WORDS[job.status]


def _number(value: float | None) -> str | None:
    return None if value is None else str(value).removesuffix(".0")


def _sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."


def _clip(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _ago(seconds: float) -> str:
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"
