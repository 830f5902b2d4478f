"""``hunyuan-local download``: download a model from the Hugging Face Hub into the Hub cache."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

import rich_click as click
from click.exceptions import Exit
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from ...config import load_model_config, model_names
from ...durations import clock
from ...errors import ModelLoadError
from ..shared.console import SECONDS_BETWEEN_LINES, stderr

if TYPE_CHECKING:
    from ...weights.download import Transfer

_DEFAULT = "hunyuan-video"


@click.command(name="download")
@click.option("--model", default=_DEFAULT, show_default=True, help=f"Model: {', '.join(model_names())}, or a Hub id.")
@click.option("--revision", help="Branch, tag or commit of the repository.")
@click.option("--accept-licence", is_flag=True, help="Confirm that you have read and accept the licence of the "
              "weights. Needed once.")  # fmt: skip
def command(model: str, revision: str | None, accept_licence: bool) -> None:
    """Download a model's weights and print their folder.

    Example: hunyuan-local download --model hunyuan-video --accept-licence

    The weights go into the Hugging Face Hub cache; afterwards no network is needed. Free disk space is checked first,
    and after an interruption the same command resumes. A model that is already here is updated. HF_HOME selects the
    cache; HF_TOKEN is sent to the Hub.
    """
    from ...weights import licence, source
    from ...weights.files import problem_of

    console = stderr()
    config = load_model_config(model)
    if revision is not None:
        config = config.with_revision(revision)
    if config.folder is not None:
        if problem := problem_of(config.folder):
            raise ModelLoadError(
                f"model={model!r}: the folder {problem}; it is not a Hub repository, so get the files from its source"
            )
        console.print("nothing to download: the model is a complete folder", markup=False)
        print(config.source)
        return
    if (terms := source.terms_of(config)) is not None:
        if accept_licence:
            licence.accept(terms)
        licence.check_accepted(config, terms)
        console.print(f"note: {terms.notice}", markup=False)
    try:
        with _Display(console, config.model_id) as display:
            folder = source.fetch(config, on_transfer=display, on_note=display.note)
    except KeyboardInterrupt:
        console.print("interrupted; downloaded data is kept, and the same command resumes")
        raise Exit(130) from None
    print(folder)


class _Display:
    """A progress bar with bytes, speed and time left; without a terminal, a plain line every ten seconds."""

    def __init__(self, console: Console, name: str):
        self._console = console
        self._name = name
        self._bars = Bars(
            TextColumn("downloading"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[detail]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._logged = 0.0

    def __enter__(self) -> _Display:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def note(self, text: str) -> None:
        self._console.print(f"note: {text}", markup=False)

    def __call__(self, transfer: Transfer) -> None:
        from ...weights.download import in_gb

        if self._task is None:
            here = f", {in_gb(transfer.done)} already here" if transfer.done else ""
            self._console.print(f"{self._name}: {in_gb(transfer.total)}{here}", markup=False)
            self._task = self._bars.add_task("", total=transfer.total, detail="")
            self._logged = time.monotonic()
        detail = f"{in_gb(transfer.done)} of {in_gb(transfer.total)}"
        if transfer.seconds_left is not None and transfer.done < transfer.total:
            detail += f"  {in_gb(round(transfer.bytes_per_s))}/s  {clock(transfer.seconds_left)} left"
        self._bars.update(self._task, completed=transfer.done, detail=detail)
        if not self._console.is_terminal and time.monotonic() - self._logged > SECONDS_BETWEEN_LINES:
            self._logged = time.monotonic()
            self._console.print(f"downloading {detail}")
