"""Extracts the prompt from a language model's answer and checks that it can replace the original.

It must not be empty or too long, must have the same subject and language as the original, and must not be a refusal or
a message to the user. Does not depend on models.
"""

from __future__ import annotations

from ..config import AnswerPhrases
from ..errors import RewriteError
from .language import language_change
from .repetition import repetition
from .unwrapping import introduces, unwrapped
from .words import content_words, pattern, plain, sentences, unspoken, words, words_kept

_THOUGHTS = "</think>"
# A prompt of _MANY_WORDS content words or more must keep this fraction of them; a shorter one must keep one word.
_MANY_WORDS = 6
_LEAST_KEPT = 0.25
_QUESTION_MARKS = ("?", "\N{FULLWIDTH QUESTION MARK}")


def to_prompt(answer: str, original: str, max_characters: int, phrases: AnswerPhrases) -> str:
    """Extract the rewritten prompt from an answer, without the model's thoughts, introductions and remarks.

    Args:
        answer: the complete answer of the model.
        original: the original prompt.
        max_characters: maximum length of the rewritten prompt.
        phrases: phrases that distinguish a prompt from other output.

    Raises:
        RewriteError: the prompt is empty, too long, a refusal, addressed to the user, about prompts, in another
            language, repetitive, or shares no words with the original.
    """
    prompt = unwrapped(answer.rpartition(_THOUGHTS)[2], original, phrases)
    if not any(map(str.isalnum, prompt)):
        raise RewriteError(f"the language model did not write a prompt: {answer[:60]!r}")
    if len(prompt) > max_characters:
        raise RewriteError(f"the language model wrote {len(prompt)} characters; the limit is {max_characters}")
    if (fault := _fault(prompt, original, phrases)) is not None:
        raise RewriteError(f"the language model {fault}: {_shortened(prompt)!r}")
    return prompt


def _fault(prompt: str, original: str, phrases: AnswerPhrases) -> str | None:
    """What is wrong with a prompt, as a phrase that follows "the language model"; None if nothing is."""
    text, before = plain(prompt), plain(original)
    # Not a refusal if the original starts in the same way, such as "Sorry, says the robot".
    if text.startswith(phrases.refusals) and not before.startswith(phrases.refusals):
        return "declined"
    said = plain(unspoken(prompt, phrases))
    for found in pattern(phrases.to_user).finditer(said):
        if found[0] not in before:
            return f"spoke to the user ({found[0]!r})"
    begins = [plain(sentence).lstrip("*_-> ¡¿") for sentence in sentences(unspoken(prompt, phrases))]
    if _begins_with(phrases.first_person, begins) and not pattern(phrases.first_person + phrases.speakers).search(
        before
    ):
        return "spoke of itself"
    if _begins_with(phrases.requests, begins) and not pattern(phrases.requests).search(before):
        return "asked for something"
    if (question := _question(prompt, original, phrases)) is not None:
        return f"asked a question ({_shortened(question)!r})"
    for found in pattern(phrases.about_prompts).finditer(said):
        if found[0] not in before:
            return f"wrote about a prompt ({found[0]!r})"
    if introduces(prompt, original, phrases):
        return "introduced a prompt but did not write one"
    if (change := language_change(original, prompt, phrases)) is not None:
        return f"changed the language {change}"
    if (repeated := repetition(prompt, phrases)) is not None and repetition(original, phrases) is None:
        return f"repeated itself ({_shortened(repeated)!r})"
    kept, words_of_original = words_kept(original, prompt, phrases)
    if words_of_original and not kept:
        return "wrote about something else, without a word of the prompt"
    if words_of_original >= _MANY_WORDS and kept < _LEAST_KEPT * words_of_original:
        return f"wrote about something else, with {kept} of {words_of_original} words of the prompt"
    said_at_all = content_words(prompt, phrases)
    if len(said_at_all) > 1 == len(set(said_at_all)) < len(set(content_words(original, phrases))):
        return f"repeated itself ({said_at_all[0]!r})"
    return None


def _begins_with(phrases: tuple[str, ...], begins: list[str]) -> bool:
    return any(pattern(phrases).match(begin) for begin in begins)


def _question(prompt: str, original: str, phrases: AnswerPhrases) -> str | None:
    """A question that is not in the original; a question made of the words of an original question does not count."""
    for sentence in sentences(unspoken(prompt, phrases)):
        if not sentence.rstrip("*_ )").endswith(_QUESTION_MARKS):
            continue
        asked = set(words(sentence.rpartition(":")[2]))
        known = set(words(original)) if any(mark in original for mark in _QUESTION_MARKS) else set()
        if len(asked & known) * 2 < len(asked):
            return sentence
    return None


def _shortened(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:100]}..."
