"""Answers of a real small model with human judgements: which are accepted, and the benchmark that counts them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml
from chat_server import ChatServer

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import rewriting_answers

JUDGED = sorted((Path(__file__).parent / "judged").glob("*.yaml"))


@pytest.mark.parametrize("path", JUDGED, ids=lambda path: path.stem)
def test_what_becomes_of_each_answer_is_what_the_file_says(path: Path) -> None:
    for case in yaml.safe_load(path.read_text(encoding="utf-8")):
        prompt, reason = rewriting_answers.outcome(case)
        assert (prompt is not None) == case["taken"], (case["prompt"], case["answer"], reason)


def test_no_usable_answer_is_refused_and_hardly_an_unusable_one_taken() -> None:
    cases = [case for path in JUDGED for case in yaml.safe_load(path.read_text(encoding="utf-8"))]
    kinds = [(case["usable"], case["taken"]) for case in cases]
    assert [kinds.count(kind) for kind in ((True, True), (True, False), (False, True))] == [20, 0, 5]


def test_the_benchmark_counts_usable_and_unusable_answers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = [
        {"language": "en", "mode": "normal", "prompt": "a cat", "answer": "A cat walks.", "usable": True},
        {"language": "en", "mode": "normal", "prompt": "a cat", "answer": "What cat?", "usable": False},
        {"language": "en", "mode": "normal", "prompt": "a cat", "answer": "A", "cut_off": True, "usable": False},
    ]
    (tmp_path / "judged.yaml").write_text(yaml.safe_dump(found))
    rewriting_answers.main(["count", str(tmp_path / "judged.yaml")])
    assert capsys.readouterr().out.splitlines()[-1].split() == ["all", "3", "1", "0", "2", "0"]


def test_the_benchmark_asks_for_all_prompts(chat: ChatServer, tmp_path: Path) -> None:
    rewriting_answers.main(["ask", chat.url, "--output", str(tmp_path / "answers.yaml")])
    answers = yaml.safe_load((tmp_path / "answers.yaml").read_text(encoding="utf-8"))
    assert [len(answers), len({answer["language"] for answer in answers}), len(chat.asked)] == [60, 5, 60]
    assert {answer["answer"] for answer in answers} == {chat.answer}
