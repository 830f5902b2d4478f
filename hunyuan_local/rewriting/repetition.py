"""Detects repetitive text, which small language models tend to write."""

from __future__ import annotations

from collections import Counter

from ..config import AnswerPhrases
from .words import content_words, is_ideograph, sentences, unquoted, words

# Thresholds that tolerate deliberate repetition, such as "very, very slowly".
_SAME_WORD = 5
_SAME_WORDS = 3
_LONGEST_LOOP = 12
_SEVERAL_WORDS = 30
_FEWEST_NEW = 0.6
_FEW_WORDS = 4


def repetition(text: str, phrases: AnswerPhrases) -> str | None:
    """The repeated text, or None; text in quotation marks does not count."""
    said = unquoted(text)
    counts = Counter(" ".join(found) for sentence in sentences(said) if (found := words(sentence)))
    if sum(counts.values()) >= 2 * len(counts) and counts:
        return counts.most_common(1)[0][0]
    found = words(said)
    return _loop(found) or _circle(found) or _says_little(content_words(said, phrases))


def _loop(found: list[str]) -> str | None:
    """A sequence of words that is repeated without interruption."""
    for length in range(1, _LONGEST_LOOP + 1):
        same = 0
        for index in range(length, len(found)):
            same = same + 1 if found[index] == found[index - length] else 0
            if same >= length * ((_SAME_WORD if length == 1 else _SAME_WORDS) - 1):
                return " ".join(found[index - length + 1 : index + 1])
    return None


def _circle(found: list[str]) -> str | None:
    """The most common three-word sequence, if fewer than 60% of these sequences are distinct."""
    threes = Counter(zip(found, found[1:], found[2:], strict=False))
    if len(found) < _SEVERAL_WORDS or len(threes) >= _FEWEST_NEW * threes.total():
        return None
    return " ".join(threes.most_common(1)[0][0])


def _says_little(found: list[str]) -> str | None:
    """The content words, if each occurs at least twice on average: "The horse was a horse, the joke about a horse"."""
    spoken = [word for word in found if not is_ideograph(word)]
    if len(spoken) < _FEW_WORDS or len(set(spoken)) * 2 > len(spoken):
        return None
    return " ".join(dict.fromkeys(spoken))
