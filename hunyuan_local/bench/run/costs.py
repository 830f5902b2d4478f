"""What a video costs: at a service its price, here the machine's time at the prices of the scenario file.

Knows no price by itself.
"""

from __future__ import annotations

from pydantic import ConfigDict, Field, model_validator

from ...capabilities import Capabilities
from ...config.strict import StrictConfig

_SECONDS_AN_HOUR = 3600


class Costs(StrictConfig):
    """What an hour of this machine costs, in US dollars: a rent, or electricity, or a card, or the last two together.

    Attributes:
        electricity_usd_per_kwh: with ``power_w``.
        power_w: what the machine, or its card, draws while it makes a video.
        card_usd: what the card was bought for, with ``card_lifetime_hours``.
        card_lifetime_hours: hours of work that the price is spread over.
        usd_per_hour: of a rented machine, in the place of the others.
        source: where the numbers are from, for the report.
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
                raise ValueError("usd_per_hour is the whole price of an hour; leave the others out, or leave it out")
            return self
        if None in electricity and any(value is not None for value in electricity):
            raise ValueError("electricity_usd_per_kwh and power_w belong together; give both or neither")
        if None in card and any(value is not None for value in card):
            raise ValueError("card_usd and card_lifetime_hours belong together; give both or neither")
        return self

    @property
    def hour_usd(self) -> float | None:
        """US dollars an hour of work; None if the file names no price."""
        if self.usd_per_hour is not None:
            return self.usd_per_hour
        parts = []
        if self.electricity_usd_per_kwh is not None and self.power_w is not None:
            parts.append(self.power_w / 1000 * self.electricity_usd_per_kwh)
        if self.card_usd is not None and self.card_lifetime_hours is not None:
            parts.append(self.card_usd / self.card_lifetime_hours)
        return sum(parts) if parts else None


def local_cost(costs: Costs | None, total_s: float) -> tuple[float | None, str]:
    """US dollars of a video that took so many seconds here, and how that was found, or why it is not known."""
    hour_usd = None if costs is None else costs.hour_usd
    if costs is None or hour_usd is None:
        return None, "not known: the scenario file has no costs"
    parts = []
    if costs.usd_per_hour is not None:
        parts.append(f"rent of {costs.usd_per_hour:g} US dollars an hour")
    if costs.power_w is not None:
        parts.append(f"{costs.power_w:g} W at {costs.electricity_usd_per_kwh:g} US dollars a kWh")
    if costs.card_usd is not None:
        parts.append(f"a card of {costs.card_usd:g} US dollars over {costs.card_lifetime_hours:g} hours")
    source = f" ({costs.source})" if costs.source else ""
    return hour_usd * total_s / _SECONDS_AN_HOUR, f"the time of the run: {' and '.join(parts)}{source}"


def hosted_cost(limits: Capabilities, is_billed: bool) -> tuple[float | None, str]:
    """US dollars of a video at an address of a service's format, and where that is from, or why it is not known."""
    if not is_billed:
        return None, "not known: this address is not the service's own, whose price is not taken for it"
    if limits.price_usd is None:
        return None, "not known: the service's price of a video is not known here; look at its page"
    return limits.price_usd, f"the service's price: {limits.price_source or 'unstated'}"
