"""Whether what a language model wrote is a prompt in the place of another: not empty, not too long, no refusal, and in
the same language.

Knows nothing about models.
"""

from __future__ import annotations

from ..errors import RewriteError
from .language import language_change

_THOUGHTS = "</think>"
_QUOTES = (('"', '"'), ("“", "”"), ("'", "'"), ("「", "」"), ("«", "»"))


def to_prompt(answer: str, original: str, max_characters: int, refusals: tuple[str, ...]) -> str:
    """The rewritten prompt in an answer: without the model's thoughts, and without quotation marks around the whole.

    Args:
        answer: all that the model wrote.
        original: the prompt that was to be rewritten.
        max_characters: of the longest prompt that is taken.
        refusals: beginnings, in small letters, with which models decline.

    Raises:
        RewriteError: it is empty, too long, a refusal, or of another language.
    """
    prompt = _unquoted(answer.rpartition(_THOUGHTS)[2].strip())
    if not any(map(str.isalnum, prompt)):
        raise RewriteError(f"the language model wrote no prompt, but {answer[:60]!r}")
    if len(prompt) > max_characters:
        raise RewriteError(
            f"the language model wrote {len(prompt)} characters, of which at most {max_characters} are taken"
        )
    begun = _plain(prompt)
    # A prompt may begin so itself: "Sorry, says the robot" keeps it.
    if begun.startswith(refusals) and not _plain(original).startswith(refusals):
        raise RewriteError(f"the language model declined: {_shortened(prompt)!r}")
    if (change := language_change(original, prompt)) is not None:
        raise RewriteError(f"the language model changed the language, {change}: {_shortened(prompt)!r}")
    return prompt


def _unquoted(text: str) -> str:
    for begin, end in _QUOTES:
        inside = text[len(begin) : -len(end)]
        is_quoted = len(text) > 2 and text.startswith(begin) and text.endswith(end)
        if is_quoted and begin not in inside and end not in inside:
            return inside.strip()
    return text


def _plain(text: str) -> str:
    """In small letters, with the apostrophe of keyboards."""
    return text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")


def _shortened(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:100]}..."
