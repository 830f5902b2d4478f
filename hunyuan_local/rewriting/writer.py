"""The interface of what writes answers to messages: a language model here, or one behind a server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

# As in OpenAI's chat completions and in transformers' chat templates: role and content of each.
Messages = list[dict[str, str]]
ShouldStop = Callable[[], bool]


@dataclass(frozen=True)
class Answer:
    """What was written; not ``complete`` where the longest answer was reached before the end."""

    text: str
    complete: bool


class Writer(Protocol):
    """Writes answers, one at a time."""

    @property
    def name(self) -> str:
        """Which model, and where it is if not here."""
        ...

    def write(self, messages: Messages, max_new_tokens: int, should_stop: ShouldStop) -> Answer:
        """The most likely answer.

        Raises:
            RewriteError: it took too long, or there is none.
            GenerationCancelledError: ``should_stop`` said so.
        """
        ...

    def close(self) -> None:
        """Give back memory."""
        ...
