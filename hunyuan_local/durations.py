"""Lengths of time as text: ``clock`` for the terminal, ``in_words`` for pages."""

from __future__ import annotations


def clock(seconds: float) -> str:
    """Such as ``4.2 s``, ``18:49`` (minutes and seconds) or ``3:20:00`` (with hours)."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def in_words(seconds: float) -> str:
    """Such as ``0.8 s``, ``42 s``, ``3 min 10 s`` or ``1 h 16 min``; from ten minutes on without the seconds."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 10:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
