"""Which answers of a language model are accepted as prompts, and which are refused."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from hunyuan_local.config import load_answer_phrases, load_rewrite_template
from hunyuan_local.errors import RewriteError
from hunyuan_local.rewriting.answer import to_prompt

ORIGINAL = "a cat walks on the grass in the morning and looks around"
TEMPLATE = load_rewrite_template("normal")
PHRASES = load_answer_phrases()
GERMAN = "Eine schwarze Katze läuft am frühen Morgen langsam durch das nasse Gras und schaut sich dabei um."
ENGLISH = "A black cat walks slowly through the wet grass in the early morning and looks around as it goes."


def prompt_of(answer: str, original: str = ORIGINAL) -> str:
    return to_prompt(answer, original, TEMPLATE.max_characters, PHRASES)


def cases(name: str) -> list[Any]:
    """The answers in a file next to this one."""
    found = yaml.safe_load((Path(__file__).parent / f"{name}.yaml").read_text(encoding="utf-8"))
    return [pytest.param(case, id=f"{number}-{case['answer'][:30]}") for number, case in enumerate(found)]


@pytest.mark.parametrize(
    "answer",
    [
        "a cat walks",
        "  a cat walks\n",
        '"a cat walks"',
        "“a cat walks”",
        "<think>The user wants a cat.</think>\n\na cat walks",
        '<think>"a dog"</think> "a cat walks"',
    ],
)
def test_the_prompt_is_taken_from_what_stands_around_it(answer: str) -> None:
    assert prompt_of(answer) == "a cat walks"


def test_quotation_marks_that_belong_to_the_prompt_stay() -> None:
    answer = '"Hello" and "bye" are written on the wall'
    assert prompt_of(answer, "a wall with words") == answer


@pytest.mark.parametrize("answer", ["", "  \n", '""', "...", "<think>hm</think>"])
def test_an_empty_answer_is_refused(answer: str) -> None:
    with pytest.raises(RewriteError, match="did not write a prompt"):
        prompt_of(answer)


def test_an_answer_that_is_too_long_is_refused() -> None:
    longest = TEMPLATE.max_characters
    answer = f"a cat {','.join(map(str, range(longest)))}"
    assert prompt_of(answer[:longest])
    with pytest.raises(RewriteError, match=f"wrote {longest + 1} characters; the limit is {longest}"):
        prompt_of(answer[: longest + 1])


@pytest.mark.parametrize(
    "answer",
    ["I'm sorry, but I can't help", "I\N{RIGHT SINGLE QUOTATION MARK}m sorry.", "As an AI, I do not", "抱歉, 我不能"],
)
def test_a_refusal_is_refused(answer: str) -> None:
    with pytest.raises(RewriteError, match="declined"):
        prompt_of(answer)


def test_a_prompt_that_begins_like_a_refusal_may_be_rewritten() -> None:
    assert prompt_of("Sorry, says the small robot", "Sorry, says a robot") == "Sorry, says the small robot"


@pytest.mark.parametrize(
    ("original", "answer", "change"),
    [
        (ORIGINAL, "一只猫在清晨的草地上走", "from Latin to Chinese script"),
        ("一只猫在草地上走", "a cat walks on the grass", "from Chinese to Latin script"),
        ("草原を歩く猫", "一只猫在清晨的草地上走", "from Japanese to Chinese script"),
        ("кот идёт по траве", "a cat walks on the grass", "from Cyrillic to Latin script"),
        (GERMAN, ENGLISH, "from de to en"),
        (ENGLISH, GERMAN, "from en to de"),
    ],
)
def test_another_language_is_refused(original: str, answer: str, change: str) -> None:
    with pytest.raises(RewriteError, match=f"changed the language {change}"):
        prompt_of(answer, original)


@pytest.mark.parametrize(
    ("original", "answer"),
    [
        (ORIGINAL, ENGLISH),
        ("Katze im Gras", GERMAN),  # too short to judge
        ("a cat", "a cat with a sign that says 猫"),
        ("草原を歩く猫", "早朝の草原をゆっくり歩く黒い猫"),
        ("1 + 1", "a cat walks on the grass"),  # contains no letters
    ],
)
def test_the_same_language_is_taken(original: str, answer: str) -> None:
    assert prompt_of(answer, original) == answer


@pytest.mark.parametrize("mode", ["normal", "master"])
def test_the_wording_asks_for_the_prompts_own_language(mode: str) -> None:
    assert "language of the user's prompt" in " ".join(load_rewrite_template(mode).system.split())


@pytest.mark.parametrize("case", cases("good_answers"))
def test_a_good_answer_is_taken_word_for_word(case: dict[str, str]) -> None:
    assert prompt_of(case["answer"], case["prompt"]) == case["answer"]


@pytest.mark.parametrize("case", cases("wrapped_answers"))
def test_what_is_reported_around_a_prompt_is_left_out(case: dict[str, str]) -> None:
    assert prompt_of(case["answer"], case.get("prompt", ORIGINAL)) == case["becomes"]


@pytest.mark.parametrize("case", cases("bad_answers"))
def test_what_is_no_prompt_is_refused(case: dict[str, str]) -> None:
    with pytest.raises(RewriteError) as caught:
        prompt_of(case["answer"], case.get("prompt", ORIGINAL))
    assert re.search(case["error"], str(caught.value))


@pytest.mark.parametrize("case", [case for case in cases("good_answers") if case.values[0]["prompt"].isascii()])
def test_a_good_answer_is_taken_after_an_introduction(case: dict[str, str]) -> None:
    answer = f"Sure! Here is the rewritten prompt:\n\n{case['answer']}"
    assert prompt_of(answer, case["prompt"]) == case["answer"]


def test_the_longest_answers_are_checked_in_a_moment() -> None:
    began = time.process_time()
    for answer in ("[" * 900, "a cat " * 150, "Sure! " * 150, "\n" * 899 + "a", '"' * 900, "here: " * 150):
        with pytest.raises(RewriteError):
            prompt_of(answer)
    assert time.process_time() - began < 5


def test_phrases_are_in_small_letters_with_the_apostrophe_of_keyboards() -> None:
    for phrases in PHRASES.model_dump().values():
        for phrase in phrases.values() if isinstance(phrases, dict) else phrases:
            assert phrase == phrase.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").strip()
