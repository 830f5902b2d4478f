"""Durations as text: ``clock`` and ``span`` for the terminal, ``in_words`` for pages."""

from __future__ import annotations


def clock(seconds: float) -> str:
    """Format as ``4.2 s``, ``18:49`` (minutes and seconds) or ``3:20:00`` (with hours)."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def span(low: float, high: float) -> str:
    """Format a range as ``4-7 s``, ``18-25 min`` or ``1:10-1:52 h``, by the size of its upper end."""
    if high < 119.5:
        return f"{low:.0f}-{high:.0f} s"
    first, last = round(low / 60), round(high / 60)
    if last < 120:
        return f"{first}-{last} min"
    return f"{first // 60}:{first % 60:02}-{last // 60}:{last % 60:02} h"


def in_words(seconds: float) -> str:
    """Format as ``0.8 s``, ``42 s``, ``3 min 10 s`` or ``1 h 16 min``; without seconds from ten minutes up."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 10:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
