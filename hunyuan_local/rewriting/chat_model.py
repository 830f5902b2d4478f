"""The interface of language models that answer messages, local or behind a server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

# Each with role and content, as in OpenAI's chat completions and the chat templates of transformers.
Messages = list[dict[str, str]]
ShouldStop = Callable[[], bool]


@dataclass(frozen=True)
class Answer:
    """The answer of a model; not ``complete`` if it was cut off at the token limit."""

    text: str
    complete: bool


class Writer(Protocol):
    """Writes answers, one at a time."""

    @property
    def name(self) -> str:
        """The model, and the URL of its server if it is remote."""
        ...

    def write(self, messages: Messages, max_new_tokens: int, should_stop: ShouldStop) -> Answer:
        """The most likely answer.

        Raises:
            RewriteError: the model took too long, or gave no answer.
            GenerationCancelledError: ``should_stop`` returned True.
        """
        ...

    def close(self) -> None:
        """Release memory."""
        ...
