"""Detects whether two short texts are in different languages.

Compares scripts for any text, and languages within a script only if both texts are long enough for a clear result.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import lru_cache
from typing import Any

from ..config import AnswerPhrases
from .words import language_votes

# The language identifier is wrong too often for texts with fewer letters or at a lower confidence.
_ENOUGH_LETTERS = 30
_SURE = 0.9
_ENOUGH_VOTES = 2
_MANY_TIMES = 2
_KANA = ("HIRAGANA", "KATAKANA")
_MOST_LETTERS = 5000


def language_change(before: str, after: str, phrases: AnswerPhrases) -> str | None:
    """The change of language, such as ``from en to de``; None if there is none or it is unclear.

    For short texts, the function words in ``phrases`` determine the language.
    """
    scripts = [_script(text) for text in (before, after)]
    if None in scripts:
        return None
    if scripts[0] != scripts[1]:
        return f"from {scripts[0]} to {scripts[1]} script"
    if min(_letters(before), _letters(after)) >= _ENOUGH_LETTERS:
        (old, sure_of_old), (new, sure_of_new) = (_identifier().classify(text) for text in (before, after))
        if min(sure_of_old, sure_of_new) >= _SURE:
            return f"from {old} to {new}" if old != new else None
    return _change_of_votes(language_votes(before, phrases), language_votes(after, phrases))


def _change_of_votes(before: dict[str, int], after: dict[str, int]) -> str | None:
    """The change of language by function words: each text must have several of its language and few of the other."""
    old, new = (max(votes, key=votes.__getitem__) for votes in (before, after))
    is_clear = all(
        votes[own] >= _ENOUGH_VOTES and votes[own] >= _MANY_TIMES * votes[others]
        for votes, own, others in ((before, old, new), (after, new, old))
    )
    return f"from {old} to {new}" if is_clear and old != new else None


def _letters(text: str) -> int:
    return sum(map(str.isalpha, text))


def _script(text: str) -> str | None:
    """The most common script, such as ``Latin``; None for a text without letters.

    Japanese mixes scripts: a text with any kana counts as Japanese if it consists mainly of kana and ideographs.
    """
    found = Counter(
        unicodedata.name(letter, "UNKNOWN").split()[0] for letter in text[:_MOST_LETTERS] if letter.isalpha()
    )
    if not found:
        return None
    kana = sum(found[name] for name in _KANA)
    if kana and kana + found["CJK"] > sum(found.values()) / 2:
        return "Japanese"
    name = found.most_common(1)[0][0]
    return {"CJK": "Chinese"}.get(name, name.capitalize())


@lru_cache(maxsize=1)
def _identifier() -> Any:
    """The language identifier; loaded on first use, since its table takes a moment to read."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
