"""Extracts the prompt from an answer: removes an introduction, quotation marks, Markdown and closing remarks.

Does not check whether the prompt is usable.
"""

# ruff: noqa: RUF001  # punctuation of several scripts is intentional

from __future__ import annotations

import json
import re

from ..config import AnswerPhrases
from .words import content_words, pattern, plain, sentences, unquoted, words

_PAIRS = (
    ('"', '"'), ("“", "”"), ("'", "'"), ("‘", "’"), ("„", "“"), ("„", "”"), ("‚", "‘"), ("«", "»"), ("»", "«"),
    ("「", "」"), ("『", "』"), ("【", "】"), ("[", "]"), ("**", "**"), ("__", "__"), ("*", "*"), ("_", "_"),
    ("`", "`"),
)  # fmt: skip
_FENCE = re.compile(r"(`{3,}|~{3,})[\w-]*\s*\n(.*?)\n?\s*\1", re.DOTALL)
_TAG = re.compile(r"<(\w+)>(.*)</\1>", re.DOTALL)
_HEADING = re.compile(r"#{1,6}\s+([^\n]+)")
_TO_COLON = re.compile(r"([^\n:：]{1,240})[:：][*_`]*\s+(.+)|([^\n:：]{1,240})：(.+)", re.DOTALL)
_FIRST_SENTENCE = re.compile(r"([^\n]{1,240}?[.!])\s+(.+)|([^\n]{1,240}?[。！])(.+)", re.DOTALL)
_COLON = re.compile("[:：]")
_LONGEST_LINE = 240


def unwrapped(answer: str, original: str, phrases: AnswerPhrases) -> str:
    """The prompt in an answer; an introduction that the ``original`` also starts with is kept."""
    text = answer.strip()
    while True:
        shorter = _without_introduction(_unframed(text), original, phrases)
        shorter = _without_closing(shorter, original, phrases).strip()
        if shorter == text or not any(map(str.isalnum, shorter)):
            return text
        text = shorter


def introduces(line: str, original: str, phrases: AnswerPhrases) -> bool:
    """Whether a line only introduces a prompt: "Sure! Here's a rewritten version of your prompt"."""
    bare = plain(unquoted(line.strip("#>*_`~-:： \t")))
    said = sentences(_after_interjection(bare, phrases) or bare)[-1:]
    if not said or len(line) > _LONGEST_LINE or _COLON.search(said[0]) or plain(original).startswith(said[0][:20]):
        return False
    start = said[0].lstrip("¡¿([*_ ")
    prompt_words = pattern(phrases.prompt_words)
    names_a_prompt = any(found[0] not in plain(original) for found in prompt_words.finditer(start))
    if names_a_prompt and pattern(phrases.openers).match(start):
        return True
    others = words(prompt_words.sub(" ", start))
    label = set(words(" ".join(phrases.label_words))) - set(content_words(original, phrases))
    return (bool(others) or names_a_prompt) and all(word in label for word in others)


def _unframed(text: str) -> str:
    """The text without Markdown, quotation marks, tags or JSON around all of it."""
    if (found := _FENCE.fullmatch(text)) or (found := _TAG.fullmatch(text)):
        return found[2].strip()
    if found := _HEADING.fullmatch(text):
        return found[1].strip()
    lines = text.splitlines()
    if lines and all(line.startswith(">") for line in lines if line.strip()):
        return "\n".join(line.strip().removeprefix(">").strip() for line in lines).strip()
    if text.startswith("{") and text.endswith("}"):
        return _of_json(text)
    for begin, end in _PAIRS:
        bare = text.rstrip(".") if text.endswith(end + ".") else text
        inside = bare[len(begin) : -len(end)]
        is_framed = len(bare) > len(begin) + len(end) and bare.startswith(begin) and bare.endswith(end)
        if is_framed and begin not in inside and end not in inside:
            return inside.strip()
    return text


def _of_json(text: str) -> str:
    """The only string in a JSON object, or the one with a key that contains "prompt"; otherwise the text unchanged."""
    try:
        found = json.loads(text)
    except ValueError:
        return text
    values = [value for key, value in found.items() if isinstance(value, str) and (len(found) == 1 or "prompt" in key)]
    return str(values[0]) if len(values) == 1 else text


def _without_introduction(text: str, original: str, phrases: AnswerPhrases) -> str:
    line, _, rest = text.partition("\n")
    if rest.strip() and introduces(line, original, phrases):
        return rest.strip()
    for border in (_TO_COLON, _FIRST_SENTENCE):
        if found := border.match(text):
            begin, rest = (part for part in found.groups() if part is not None)
            if introduces(begin, original, phrases):
                return rest.strip()
    if _after_interjection(plain(original), phrases) is None:
        return _after_interjection(text, phrases) or text
    return text


def _after_interjection(text: str, phrases: AnswerPhrases) -> str | None:
    """The text after an interjection such as "Sure!"; None if there is no interjection, or nothing after it."""
    found = pattern(phrases.interjections).match(plain(text).lstrip("¡*_"))
    if found is None:
        return None
    rest = re.match(
        rf"[¡*_\s]*{re.escape(found[0])}[*_\s]*[!,.:，。！：、]+[*_\s]*(.+)", text, re.DOTALL | re.IGNORECASE
    )
    return rest[1] if rest else None


def _without_closing(text: str, original: str, phrases: AnswerPhrases) -> str:
    """The text without closing lines or sentences that address the user, if anything precedes them."""
    closings, remarks = pattern(phrases.closings), pattern(phrases.closings + phrases.refusals)
    before = plain(original)
    lines = text.splitlines()
    for number, line in enumerate(lines[1:], start=1):
        if remarks.match(plain(line).lstrip("*_->( ")) and plain(line) not in before:
            return "\n".join(lines[:number])
    last = sentences(text)[-1:]
    if (
        last
        and not text.startswith(last[0])
        and closings.match(plain(last[0]))
        and plain(last[0]) not in plain(original)
    ):
        return text[: text.rindex(last[0])]
    return text
