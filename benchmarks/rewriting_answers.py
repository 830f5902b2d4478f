"""Answers of a language model to sixty prompts in five languages, and which of them the package accepts as prompts.

    python benchmarks/rewriting_answers.py ask http://127.0.0.1:8080/v1 --mode normal --output answers.yaml
    python benchmarks/rewriting_answers.py count answers.yaml

The first command sends the prompts to a server with OpenAI's chat completions, and saves the answers; of truncated
answers, which are never accepted, only the beginning. A person then adds ``usable: true`` or ``false`` to each: whether
the answer, ignoring any introduction or closing remark, describes the prompt's video in the prompt's language. The
second command passes the same answers to the package, as if from a language model, and counts which are accepted. Set
PYTHONPATH to count with another checkout.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hunyuan_local.config import RewriteConfig, load_rewrite_template
from hunyuan_local.errors import RewriteError
from hunyuan_local.rewriting import Rewriter
from hunyuan_local.rewriting.chat_model import Answer, Messages, ShouldStop
from hunyuan_local.rewriting.endpoint import EndpointWriter
from hunyuan_local.schema import GenerationRequest

_BEGINNING = 200
PROMPTS = Path(__file__).with_name("rewriting_prompts.yaml")


@dataclass
class Canned:
    """A language model that always gives the same answer."""

    answer: Answer
    name: str = "canned"

    def write(self, messages: Messages, max_new_tokens: int, should_stop: ShouldStop) -> Answer:
        """Return the answer."""
        return self.answer

    def close(self) -> None:
        """There is nothing to free."""


def ask(endpoint: str, mode: str, timeout_s: float) -> list[dict[str, Any]]:
    """Get the answers to all prompts, in the order of the file."""
    template = load_rewrite_template(mode)
    writer = EndpointWriter(RewriteConfig(endpoint=endpoint, timeout_s=timeout_s))
    found = []
    for language, prompts in yaml.safe_load(PROMPTS.read_text(encoding="utf-8")).items():
        for prompt in prompts:
            messages = [{"role": "system", "content": template.system.strip()}, {"role": "user", "content": prompt}]
            answer = writer.write(messages, template.max_new_tokens, lambda: False)
            cut_off = {} if answer.complete else {"cut_off": True}
            text = answer.text if answer.complete else answer.text[:_BEGINNING]
            found.append({"language": language, "mode": mode, "prompt": prompt, "answer": text, **cut_off})
            print(f"{len(found):3} {language} {prompt[:50]!r}: {answer.text[:70]!r}", flush=True)
    return found


def outcome(case: dict[str, Any]) -> tuple[str | None, str]:
    """The prompt that the package extracts from an answer, or None and the reason for the refusal."""
    request = GenerationRequest(prompt=case["prompt"], rewrite=case["mode"])
    writer = Canned(Answer(case["answer"], not case.get("cut_off", False)))
    try:
        rewriter = Rewriter(RewriteConfig(on_failure="fail"), lambda: writer)
        return rewriter.rewrite(request, lambda: False).request.prompt, ""
    except RewriteError as error:
        return None, str(error)


def table(cases: Sequence[dict[str, Any]]) -> str:
    """Counts by human judgement and by the package's decision: one line per language and one for all."""
    lines = [
        "                    usable               unusable",
        "language  answers accepted  refused    refused accepted",
    ]
    for language in [*dict.fromkeys(case["language"] for case in cases), "all"]:
        found = [
            (case["usable"], outcome(case)[0] is not None) for case in cases if language in (case["language"], "all")
        ]
        counts = [found.count(kind) for kind in ((True, True), (True, False), (False, False), (False, True))]
        lines.append(f"{language:8}{len(found):>9}{counts[0]:>9}{counts[1]:>9}{counts[2]:>11}{counts[3]:>9}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    asking = commands.add_parser("ask", help="send the prompts to a server and save its answers")
    asking.add_argument("endpoint", help="base URL, such as http://127.0.0.1:8080/v1")
    asking.add_argument("--mode", choices=("normal", "master"), default="normal")
    asking.add_argument("--timeout", type=float, default=300, help="time limit per answer, in seconds")
    asking.add_argument("--output", type=Path, required=True)
    counting = commands.add_parser("count", help="count accepted and refused answers that a person has judged")
    counting.add_argument("judged", type=Path)
    counting.add_argument("--list", action="store_true", help="also print the decision on each answer")
    options = parser.parse_args(arguments)
    if options.command == "ask":
        answers = ask(options.endpoint, options.mode, options.timeout)
        options.output.write_text(yaml.safe_dump(answers, allow_unicode=True, sort_keys=False, width=120), "utf-8")
        return
    cases = yaml.safe_load(options.judged.read_text(encoding="utf-8"))
    for case in cases if options.list else ():
        prompt, reason = outcome(case)
        print(f"{'usable' if case['usable'] else 'unusable'}: {case['prompt']!r}: {prompt or 'REFUSED: ' + reason!r}\n")
    print(table(cases))


if __name__ == "__main__":
    main()
