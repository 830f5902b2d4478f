"""What was spent at hosted services, on disk, and the limit that it keeps.

Every submission is written down before it is made, so that neither a crash nor the next run of the
same work forgets it. One whose fate is not known counts.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path

from ...durable import replacing
from ...errors import ConfigError, SpendingLimitError


class Budget:
    """The account of one piece of work; see :class:`hunyuan_local.backends.base.Spending`.

    Services with prices of their own share an account where their budgets have one path, in one process and one
    thread at a time; several threads share one budget.

    Args:
        path: the file; made at the first submission.
        price_usd: of one video in US dollars; None is not known.
        limit_usd: of all that the file counts, earlier runs included; None sets no limit.

    Attributes:
        refusal: why a submission was refused; empty as long as none was.

    Raises:
        ConfigError: there is a limit, and the price is not known; the limit is not above 0; the file is damaged.
    """

    def __init__(self, path: Path, price_usd: float | None, limit_usd: float | None):
        if limit_usd is not None and price_usd is None:
            raise ConfigError(
                f"max_cost={limit_usd:g}: cannot be kept, since the price of a video is not known for this backend; "
                "leave it out, or set a limit at the service"
            )
        if limit_usd is not None and not limit_usd > 0:
            raise ConfigError(f"max_cost={limit_usd:g}: must be above 0 US dollars")
        self._path, self._price_usd, self._limit_usd = path, price_usd, limit_usd
        self._lock = threading.Lock()
        self.refusal = ""
        self._read()

    @property
    def submissions(self) -> int:
        """How many tasks were submitted, in all runs."""
        return self._read()[0]

    @property
    def spent_usd(self) -> float | None:
        """What they cost at most, each at the price of its day; None where the price is not known."""
        return None if self._price_usd is None else self._read()[1]

    def reserve(self) -> None:
        """Write down one more submission.

        Raises:
            SpendingLimitError: it would cost more than the limit.
            ConfigError: the account cannot be written.
        """
        with self._lock:
            if self._limit_usd is not None:
                assert self._price_usd is not None  # else there is no limit
                submissions, usd = self._read()
                after = usd + self._price_usd
                if after > self._limit_usd + 1e-9:
                    self.refusal = (
                        f"max_cost={self._limit_usd:g}: {submissions} videos were submitted for {usd:.2f} "
                        f"US dollars, and another would make {after:.2f}; give a higher --max-cost to go on"
                    )
                    raise SpendingLimitError(self.refusal)
            self._count(1)

    def give_back(self) -> None:
        """The service has made nothing of a submission."""
        with self._lock:
            self._count(-1)

    def _read(self) -> tuple[int, float]:
        """How many submissions, and what they cost in US dollars."""
        try:
            found = json.loads(self._path.read_text()) if self._path.exists() else {"submissions": 0, "usd": 0.0}
            return int(found["submissions"]), float(found["usd"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{self._path}: the account of what was spent is damaged: {error}; look at your account at the "
                "service, then delete the file to count from 0"
            ) from error

    def _count(self, more: int) -> None:
        submissions, usd = self._read()
        found = {"submissions": submissions + more, "usd": usd + more * (self._price_usd or 0.0)}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._path) as partial:
                partial.write_text(json.dumps(found))
        except OSError as error:
            raise ConfigError(f"{self._path}: the account cannot be written: {error}; check the disk") from error
