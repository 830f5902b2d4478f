"""Summarises a batch after a run: counts, time, cost and failures, and the rows of the report page."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from ..schema import Timings, seed_text
from .report import ReportRow
from .run import Batch, ItemState

_STATUS_WORDS = {"done": "succeeded", "failed": "failed", "running": "running", "waiting": "queued"}


class Summary:
    """The results of a run.

    Args:
        batch: after :meth:`Batch.work`.
        seconds: duration of this run.
        spent_usd: total cost at the service over all runs; None if unknown.
        price_usd: price of one video.

    Attributes:
        counts: number of items by status: ``done``, ``failed``, ``running`` and ``waiting``.
        made: number of videos delivered in this run.
        failures: line and reason of each failed item.
    """

    def __init__(self, batch: Batch, seconds: float, spent_usd: float | None = None, price_usd: float | None = None):
        self._batch, self._states = batch, batch.states()
        self._where, self._price_usd = batch.destination, price_usd
        self.seconds, self.spent_usd = seconds, spent_usd
        self.counts = Counter(state.status for state in self._states)
        self.made = len(batch.made)
        self.failures = [(state.item.line, _reason(state)) for state in self._states if state.status == "failed"]

    @property
    def is_complete(self) -> bool:
        """Whether every video was delivered."""
        return self.counts["done"] == len(self._states)

    @property
    def left(self) -> int:
        """Items that are neither done nor failed."""
        return self.counts["waiting"] + self.counts["running"]

    def to_json(self) -> dict[str, Any]:
        """The summary and every item as JSON values; times in seconds."""
        return {
            "videos": len(self._states),
            "done": self.counts["done"],
            "made": self.made,
            "failed": self.counts["failed"],
            "left": self.left,
            "seconds": round(self.seconds, 3),
            "spent_usd": self.spent_usd,
            "items": [self._item(state) for state in self._states],
        }

    def rows(self) -> list[ReportRow]:
        """The rows of the report page, one per item."""
        return [self._row(state) for state in self._states]

    def _item(self, state: ItemState) -> dict[str, Any]:
        job = state.job
        text = None if job is None else seed_text(job.request.seed)
        return {
            "line": state.item.line,
            "key": state.item.key,
            "status": state.status,
            "video": self._where.location(state.name) if state.is_there else None,
            "seed": None if job is None else job.request.seed,
            **({} if text is None else {"seed_text": text}),
            "attempts": 0 if job is None else job.attempts,
            "seconds": None if job is None or not job.result else job.result["timings"]["total_s"],
            "frames_sha256": None if job is None or not job.result else job.result["provenance"]["frames_sha256"],
            "error": _reason(state) if state.status == "failed" else "",
        }

    def _row(self, state: ItemState) -> ReportRow:
        job, result = state.job, (state.job.result or {}) if state.job else {}
        place = self._where.location(state.name) if state.is_there else None
        return ReportRow(
            line=state.item.line,
            status=_STATUS_WORDS[state.status],
            request=state.item.request if job is None else job.request,
            video=place,
            poster=self._picture(state, place),
            timings=Timings(**result["timings"]) if result else None,
            error=_reason(state) if state.status == "failed" else "",
            notes=result.get("notes", []),
            cost_usd=self._price_usd if state.is_there else None,
            attempts=0 if job is None else job.attempts,
            device=result.get("provenance", {}).get("device"),
        )

    def _picture(self, state: ItemState, place: str | None) -> Path | None:
        if place is None or state.job is None:
            return None
        if self._where.is_local:
            return Path(place)
        kept = self._batch.picture(state.job)
        return kept if kept.exists() else None


def _reason(state: ItemState) -> str:
    return state.problem or (state.job.error if state.job else "")
