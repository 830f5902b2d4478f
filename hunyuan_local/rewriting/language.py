"""Whether two texts are in the same language, as far as that can be told of a sentence or two.

The script is told of any text; the language within a script only where both texts are long enough and it is clear.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import lru_cache
from typing import Any

from ..config import AnswerPhrases
from .words import language_votes

# Of shorter texts the language is guessed wrongly too often, as of those where the identifier is less sure than that.
_ENOUGH_LETTERS = 30
_SURE = 0.9
_ENOUGH_VOTES = 2
_MANY_TIMES = 2
_KANA = ("HIRAGANA", "KATAKANA")
_MOST_LETTERS = 5000


def language_change(before: str, after: str, phrases: AnswerPhrases) -> str | None:
    """From what to what the language changed, in words; None if it did not, or if that cannot be told.

    Of short texts the function words in ``phrases`` tell the language.
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
    """As above, by function words: each text has several of its language, and few of the other's."""
    old, new = (max(votes, key=votes.__getitem__) for votes in (before, after))
    is_clear = all(
        votes[own] >= _ENOUGH_VOTES and votes[own] >= _MANY_TIMES * votes[others]
        for votes, own, others in ((before, old, new), (after, new, old))
    )
    return f"from {old} to {new}" if is_clear and old != new else None


def _letters(text: str) -> int:
    return sum(map(str.isalpha, text))


def _script(text: str) -> str | None:
    """The script of most letters, such as ``Latin``; None without letters.

    Japanese is written in several: with a few kana it is none other, however many ideographs there are.
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
    """Reading its table takes a moment, which only those pay who rewrite."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
