"""Cost of a video: the service's price, or for a local video the machine's time at the scenario file's prices.

Contains no prices.
"""

from __future__ import annotations

from pydantic import ConfigDict, Field, model_validator

from ...capabilities import Capabilities
from ...config.strict import StrictConfig

_SECONDS_AN_HOUR = 3600


class Costs(StrictConfig):
    """Cost of an hour on this machine, in US dollars: rent, or electricity and the GPU's purchase price or one of them.

    Attributes:
        electricity_usd_per_kwh: electricity price; requires ``power_w``.
        power_w: power that the machine or its GPU draws while it generates a video.
        card_usd: purchase price of the GPU; requires ``card_lifetime_hours``.
        card_lifetime_hours: working hours over which the purchase price is spread.
        usd_per_hour: rent of the machine; replaces all of the above.
        source: where the prices come from, for the report.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    electricity_usd_per_kwh: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    power_w: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    card_usd: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    card_lifetime_hours: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    usd_per_hour: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    source: str = ""

    @model_validator(mode="after")
    def _is_whole(self) -> Costs:
        electricity = (self.electricity_usd_per_kwh, self.power_w)
        card = (self.card_usd, self.card_lifetime_hours)
        if self.usd_per_hour is not None:
            if any(value is not None for value in (*electricity, *card)):
                raise ValueError("usd_per_hour is the whole price of an hour; omit it, or omit the other prices")
            return self
        if None in electricity and any(value is not None for value in electricity):
            raise ValueError("electricity_usd_per_kwh and power_w belong together; give both or neither")
        if None in card and any(value is not None for value in card):
            raise ValueError("card_usd and card_lifetime_hours belong together; give both or neither")
        return self

    @property
    def hour_usd(self) -> float | None:
        """US dollars per hour of work; None if the file has no prices."""
        if self.usd_per_hour is not None:
            return self.usd_per_hour
        parts = []
        if self.electricity_usd_per_kwh is not None and self.power_w is not None:
            parts.append(self.power_w / 1000 * self.electricity_usd_per_kwh)
        if self.card_usd is not None and self.card_lifetime_hours is not None:
            parts.append(self.card_usd / self.card_lifetime_hours)
        return sum(parts) if parts else None


def local_cost(costs: Costs | None, total_s: float) -> tuple[float | None, str]:
    """Cost in US dollars of a local video that took ``total_s`` seconds, and its source or why it is unknown."""
    hour_usd = None if costs is None else costs.hour_usd
    if costs is None or hour_usd is None:
        return None, "unknown: the scenario file has no costs"
    parts = []
    if costs.usd_per_hour is not None:
        parts.append(f"rent of {costs.usd_per_hour:g} US dollars per hour")
    if costs.power_w is not None:
        parts.append(f"{costs.power_w:g} W at {costs.electricity_usd_per_kwh:g} US dollars per kWh")
    if costs.card_usd is not None:
        parts.append(f"a GPU for {costs.card_usd:g} US dollars over {costs.card_lifetime_hours:g} hours")
    source = f" ({costs.source})" if costs.source else ""
    return hour_usd * total_s / _SECONDS_AN_HOUR, f"run time: {' and '.join(parts)}{source}"


def hosted_cost(limits: Capabilities, is_billed: bool) -> tuple[float | None, str]:
    """Cost in US dollars of a video from a hosted backend, and its source or why it is unknown."""
    if not is_billed:
        return None, "unknown: this URL is not the service's, so the service's price does not apply"
    if limits.price_usd is None:
        return None, "unknown: no price of a video is known for this service; see its pricing page"
    return limits.price_usd, f"the service's price: {limits.price_source or 'unstated'}"
