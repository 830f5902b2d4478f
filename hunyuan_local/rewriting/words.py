"""Splits texts in any language into words, finds their content words, and compares the words of two texts.

Does not depend on language models.
"""

# ruff: noqa: RUF001  # punctuation of several scripts is intentional

from __future__ import annotations

import re
import unicodedata
from difflib import SequenceMatcher
from functools import lru_cache

from ..config import AnswerPhrases

# Letters of Chinese, Japanese, Korean, Thai, Lao, Burmese and Khmer, in which words have no spaces around them or have
# particles attached.
_TOGETHER = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(r"[^\W\d_]+")
_IDEOGRAPH = re.compile("[\u3400-\u9fff\uf900-\ufaff]")
_PIECES = re.compile(
    # An ideograph, a run of kana, or any three consecutive letters of another script without spaces.
    "[\u3400-\u9fff\uf900-\ufaff]|[\u30a0-\u30ff]+|[\u3040-\u309f]+|(?=([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]{3}))"
)
_EMPTY_IDEOGRAPHS = frozenset(
    "的地得一在上了着著中个個只和与與是有不我你他她它这這那里裡到从從把被为為以及其之就也都很而人们們"
)
_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|„[^“”]*[“”]|«[^»]*»|»[^«]*«|「[^」]*」|『[^』]*』|(?<!\w)'[^']*'(?!\w)")
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’»*_]*\s+|(?<=[。！？])[”」』]?|\n+")
_ENOUGH_VOTES = 2
_SAME_BEGINNING = 4
_SAME_END = 5
_VOWELS = re.compile("[aeiouy]+")
_ALIKE = 0.7  # minimum difflib ratio: accepts elefant and elephant, rejects dog and fog


def plain(text: str) -> str:
    """The text in lower case, with ASCII apostrophes and single spaces between words."""
    return " ".join(text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").split())


def unquoted(text: str) -> str:
    """The text without quotations, since those are spoken in the video, not by the language model."""
    return _QUOTED.sub(" ", text)


def unspoken(text: str, phrases: AnswerPhrases) -> str:
    """The text without quotations and without speech after a verb and a colon: "and asks: where are you?"."""
    spoken = rf"({pattern(phrases.speech_verbs).pattern})\s*[:：][^.!?。！？\n]*[.!?。！？]?"
    return re.sub(spoken, " ", unquoted(text), flags=re.IGNORECASE)


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text, without empty ones."""
    return [part.strip() for part in _SENTENCE_END.split(text) if part.strip()]


def words(text: str) -> list[str]:
    """The words in lower case and without accents; each ideograph is one word."""
    bare = "".join(
        letter for letter in unicodedata.normalize("NFKD", plain(text)) if unicodedata.category(letter)[0] != "M"
    )
    found: list[str] = []
    for word in _WORD.findall(bare):
        pieces = [piece[0] or piece[1] for piece in _PIECES.finditer(word)]
        found.extend(pieces or [word])
    return found


@lru_cache(maxsize=64)
def pattern(phrases: tuple[str, ...]) -> re.Pattern[str]:
    """A regular expression for any of the phrases as whole words in :func:`plain` text; ``*`` ends a word prefix."""
    return re.compile("|".join(_whole(phrase) for phrase in sorted(phrases, key=len, reverse=True)))


def language_votes(text: str, phrases: AnswerPhrases) -> dict[str, int]:
    """The number of function words of each language in a text."""
    found = words(text)
    known = _function_words(tuple(phrases.function_words.items()))
    return {language: sum(word in own for word in found) for language, own in known.items()}


def words_kept(before: str, after: str, phrases: AnswerPhrases) -> tuple[int, int]:
    """(number of distinct content words of ``before`` that are in ``after`` in any form, number of those words)."""
    sought, found = set(content_words(before, phrases)), set(content_words(after, phrases))
    return sum(any(_alike(one, other) for other in found) for one in sought), len(sought)


def content_words(text: str, phrases: AnswerPhrases) -> list[str]:
    """The words that a video can show, in order, without function words and words about films.

    The language is the one with the most function words in the text. If there are hardly any, only articles and short
    words are removed.
    """
    votes = language_votes(text, phrases)
    most = max(votes.values())
    known = _function_words(tuple(phrases.function_words.items()))
    lists = [known[language] for language, count in votes.items() if count == most >= _ENOUGH_VOTES]
    empty = _folded(phrases.film_words).union(_EMPTY_IDEOGRAPHS, *(lists or [_folded(phrases.articles)]))
    shortest = 2 if lists else 3
    return [word for word in words(text) if word not in empty and (len(word) >= shortest or not word.isascii())]


def is_ideograph(word: str) -> bool:
    """Whether a word is a single Chinese or Japanese ideograph."""
    return _IDEOGRAPH.fullmatch(word) is not None


def _alike(one: str, other: str) -> bool:
    """Whether two words are forms of one word: equal, with the same start or end, or nearly the same spelling."""
    short, long = sorted((one, other), key=len)
    if short == long or (len(short) == 3 and long.startswith(short) and len(long) <= 7):
        return True
    if len(short) == len(long) > 2 and _VOWELS.sub("", short) == _VOWELS.sub("", long):  # men and man, geese and goose
        return short[0] == long[0] and not _VOWELS.fullmatch(short)
    if len(short) < _SAME_BEGINNING:
        return not short.isascii() and len(short) > 1 and long.endswith(short)
    if short[:_SAME_BEGINNING] == long[:_SAME_BEGINNING] or (len(short) >= _SAME_END and long.endswith(short)):
        return True
    return short[0] == long[0] and len(short) > _SAME_END and SequenceMatcher(None, short, long).ratio() >= _ALIKE


@lru_cache(maxsize=4)
def _function_words(lists: tuple[tuple[str, str], ...]) -> dict[str, frozenset[str]]:
    return {language: _folded(tuple(text.split())) for language, text in lists}


@lru_cache(maxsize=64)
def _folded(known: tuple[str, ...]) -> frozenset[str]:
    return frozenset(word for entry in known for word in words(entry))


def _whole(phrase: str) -> str:
    text = phrase.removesuffix("*")
    begin = r"(?<![\w-])" if re.match(rf"[^\W{_TOGETHER}]", text) else ""
    end = r"(?![\w-])" if text == phrase and re.search(rf"[^\W{_TOGETHER}]$", text) else ""
    return begin + re.escape(text) + end
