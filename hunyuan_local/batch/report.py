"""The report page of a batch: one HTML file with each video, its settings, timings and errors.

The page needs no network access and no scripts. All values are escaped, since prompts and messages are untrusted.
Independent of how the videos are generated.
"""

from __future__ import annotations

import base64
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..durable import replacing
from ..durations import in_words
from ..errors import ConfigError
from ..schema import GenerationRequest, Timings
from ..video import read_poster
from ..video.output import check_folder

_TEMPLATE = Path(__file__).with_name("report.html.j2")
_WEB_ADDRESS = re.compile(r"https?://", re.IGNORECASE)
_OTHER_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)  # such as s3://, which browsers cannot open
_STAGES = ("load", "encode", "denoise", "decode", "write", "submit", "queue", "run", "download")
_SETTINGS = {
    "num_frames": "Frames",
    "num_inference_steps": "Steps",
    "seed": "Seed",
    "guidance_scale": "Guidance",
    "true_cfg_scale": "True CFG",
    "flow_shift": "Flow shift",
    "fps": "Frames per second",
    "negative_prompt": "Negative prompt",
}


@dataclass(frozen=True)
class ReportRow:
    """One video on the page.

    Attributes:
        line: line number in the batch file.
        status: a ``JobStatus``.
        video: path or http(s) URL of the finished file; None if there is none.
        poster: a local mp4, from which the page shows the middle frame, or a JPEG; None for no image.
        error: why it failed; otherwise empty.
        cost_usd: price that the service charged, if known.
        attempts: how many times it was started.
    """

    line: int
    status: str
    request: GenerationRequest
    video: str | None
    poster: Path | None
    timings: Timings | None
    error: str
    notes: list[str]
    cost_usd: float | None
    attempts: int
    device: str | None


def check_report_path(path: Path) -> None:
    """Refuse a path to which the page cannot be written, before any work starts.

    Raises:
        ConfigError: its folder is missing or not writable, or its name exceeds the file system's limit.
    """
    check_folder(f"report={str(path)!r}", path.resolve())


def write_report(path: Path, rows: Sequence[ReportRow], *, title: str, facts: Mapping[str, str]) -> None:
    """Write the page, replacing an older one.

    Videos below the page's folder get relative links, so the folder can be moved as a whole; others get absolute
    paths. If a poster cannot be read, the page shows the reason instead.

    Args:
        path: the HTML file, in an existing folder.
        facts: properties of the whole batch, such as {"Model": "tiny"}, shown in this order.

    Raises:
        ConfigError: the page cannot be written; an older one stays unchanged.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    folder = Path(os.path.abspath(path)).parent
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # each poster runs a separate ffmpeg process
        pictures = list(pool.map(_picture, [row.poster for row in rows]))
    cards = [_card(f"video-{i}", row, pictures[i], folder) for i, row in enumerate(rows)]
    counts = Counter(row.status for row in rows)
    page = template.render(title=title, facts=facts, counts=counts, cards=cards)
    try:
        with replacing(path) as partial:
            # Messages may contain file names that are not valid UTF-8.
            partial.write_bytes(page.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise ConfigError(
            f"report {path}: cannot be written: {error.strerror or error}; check the disk and the folder"
        ) from error


def _card(name: str, row: ReportRow, picture: tuple[str | None, str], folder: Path) -> dict[str, Any]:
    """The template's values for one row."""
    href, missing = _link(row.video, folder)
    width, height = row.request.width, row.request.height
    return {
        "id": name,
        "row": row,
        "href": href,
        "file": row.video.split("?")[0].rsplit("/", 1)[-1] if row.video and href else "",
        "missing": missing,
        "place": row.video if row.video and not href and not missing else "",
        "picture": picture[0],
        "no_picture": picture[1],
        "ratio": f"{width} / {height}" if width and height else "16 / 9",
        "settings": _settings(row),
        "stages": _stages(row.timings) if row.timings else [],
        "total": in_words(row.timings.total_s) if row.timings else "",
    }


def _picture(video: Path | None) -> tuple[str | None, str]:
    """A data: URL of the middle frame, or None and the reason."""
    if video is None:
        return None, ""
    try:
        picture = video.read_bytes() if video.suffix == ".jpg" else read_poster(video)
        return f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}", ""
    except Exception as error:  # of whatever kind: a page without a picture is better than none
        return None, str(error) or type(error).__name__


def _link(video: str | None, folder: Path) -> tuple[str | None, str]:
    """A link target for a page in ``folder``, or None and the path if the file is missing."""
    if video is None:
        return None, ""
    if _WEB_ADDRESS.match(video):
        return video, ""
    video = video.removeprefix("file://")
    if _OTHER_ADDRESS.match(video):
        return None, ""
    target = Path(os.path.abspath(video))
    if not target.exists():
        return None, str(target)
    if not target.is_relative_to(folder):
        return target.as_uri(), ""
    return quote(os.fsencode(target.relative_to(folder))), ""  # also colons, so the name is not taken for a scheme


def _settings(row: ReportRow) -> list[tuple[str, str]]:
    """Label and value of the request fields other than the prompt, then device, attempts and cost."""
    given = row.request.model_dump(exclude_none=True)
    if row.request.true_cfg_scale == 1.0:  # off
        del given["true_cfg_scale"]
    sides = (row.request.width, row.request.height)
    settings = [("Size", " \N{MULTIPLICATION SIGN} ".join(str(side or "?") for side in sides))] if any(sides) else []
    settings += [(name, _number(given[field])) for field, name in _SETTINGS.items() if field in given]
    if row.device:
        settings.append(("Device", row.device))
    if row.attempts > 1:
        settings.append(("Attempts", str(row.attempts)))
    if row.cost_usd is not None:
        settings.append(("Cost", f"{row.cost_usd:.4f} US$"))
    return settings


def _stages(timings: Timings) -> list[dict[str, Any]]:
    """Name, duration and position (in percent of the whole bar) of each stage that took time."""
    seconds = {stage: getattr(timings, f"{stage}_s") for stage in _STAGES}
    whole = max(timings.total_s, sum(seconds.values()))
    stages, start = [], 0.0
    for stage, spent in seconds.items():
        if spent > 0:
            width = 100 * spent / whole
            steps = f", {timings.denoise_steps} steps" if stage == "denoise" and timings.denoise_steps else ""
            label = f"{in_words(spent)}{steps}"
            stages.append({"name": stage, "label": label, "start": f"{start:.2f}", "width": f"{width:.2f}"})
            start += width
    return stages


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
