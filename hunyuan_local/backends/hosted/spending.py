"""Tracks spending at hosted services on disk and enforces a limit.

Every submission is recorded before it is sent, so that neither a crash nor a rerun of the same work loses it. A
submission with an unknown outcome counts.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path

from ...durable import replacing
from ...errors import ConfigError, SpendingLimitError


class Budget:
    """Spending on one piece of work, such as a batch; implements :class:`hunyuan_local.backends.base.Spending`.

    Budgets for services with different prices can share a file, if one thread of one process uses them. Several
    threads must share one budget.

    Args:
        path: the file, created at the first submission.
        price_usd: price of one video in US dollars; None if unknown.
        limit_usd: limit on everything recorded in the file, including earlier runs; None sets no limit.

    Attributes:
        refusal: why a submission was refused; empty until one is.

    Raises:
        ConfigError: there is a limit but the price is unknown, the limit is not above 0, or the file is damaged.
    """

    def __init__(self, path: Path, price_usd: float | None, limit_usd: float | None):
        if limit_usd is not None and price_usd is None:
            raise ConfigError(
                f"max_cost={limit_usd:g}: cannot be enforced, since the price of a video is not known for this "
                "backend; omit it, or set a limit at the service"
            )
        if limit_usd is not None and not limit_usd > 0:
            raise ConfigError(f"max_cost={limit_usd:g}: must be above 0 US dollars")
        self._path, self._price_usd, self._limit_usd = path, price_usd, limit_usd
        self._lock = threading.Lock()
        self.refusal = ""
        self._read()

    @property
    def submissions(self) -> int:
        """Number of tasks submitted in all runs."""
        return self._read()[0]

    @property
    def spent_usd(self) -> float | None:
        """Upper bound on their cost, each at its price when submitted; None if the price is unknown."""
        return None if self._price_usd is None else self._read()[1]

    def reserve(self) -> None:
        """Record one more submission.

        Raises:
            SpendingLimitError: it would exceed the limit.
            ConfigError: the file cannot be written.
        """
        with self._lock:
            if self._limit_usd is not None:
                assert self._price_usd is not None  # checked in __init__
                submissions, usd = self._read()
                after = usd + self._price_usd
                if after > self._limit_usd + 1e-9:
                    self.refusal = (
                        f"max_cost={self._limit_usd:g}: {submissions} videos were submitted for {usd:.2f} "
                        f"US dollars, and another would bring the total to {after:.2f}; raise --max-cost to continue"
                    )
                    raise SpendingLimitError(self.refusal)
            self._count(1)

    def give_back(self) -> None:
        """Remove a submission that the service rejected."""
        with self._lock:
            self._count(-1)

    def _read(self) -> tuple[int, float]:
        """The number of submissions and their cost in US dollars."""
        try:
            found = json.loads(self._path.read_text()) if self._path.exists() else {"submissions": 0, "usd": 0.0}
            return int(found["submissions"]), float(found["usd"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{self._path}: the record of spending is damaged: {error}; check your account at the service, then "
                "delete the file to count from 0"
            ) from error

    def _count(self, more: int) -> None:
        submissions, usd = self._read()
        found = {"submissions": submissions + more, "usd": usd + more * (self._price_usd or 0.0)}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._path) as partial:
                partial.write_text(json.dumps(found))
        except OSError as error:
            raise ConfigError(f"{self._path}: cannot record spending: {error}; check the disk") from error
