"""What a language model answers to sixty prompts in five languages, and what of it becomes a prompt.

    python benchmarks/rewriting_answers.py ask http://127.0.0.1:8080/v1 --mode normal --output answers.yaml
    python benchmarks/rewriting_answers.py count answers.yaml

The first asks a server with OpenAI's chat completions, and keeps the answers; of one that was cut off, which is never
taken, the beginning. A person then writes ``usable: true`` or ``false`` under each: whether the answer, without what is
said before or after it, describes the video of the prompt in the prompt's language. The second hands the same answers
to the package, as a language model would, and counts which of them become a prompt. With PYTHONPATH set to another
checkout it counts for that one.
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
from hunyuan_local.rewriting.endpoint import EndpointWriter
from hunyuan_local.rewriting.writer import Answer, Messages, ShouldStop
from hunyuan_local.schema import GenerationRequest

_BEGINNING = 200
PROMPTS = Path(__file__).with_name("rewriting_prompts.yaml")


@dataclass
class Canned:
    """A language model with one answer to everything."""

    answer: Answer
    name: str = "canned"

    def write(self, messages: Messages, max_new_tokens: int, should_stop: ShouldStop) -> Answer:
        """The answer."""
        return self.answer

    def close(self) -> None:
        """Nothing is held."""


def ask(endpoint: str, mode: str, timeout_s: float) -> list[dict[str, Any]]:
    """The answers to all prompts, in the order of the file."""
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
    """The prompt that the package makes of an answer, or None and why it is refused."""
    request = GenerationRequest(prompt=case["prompt"], rewrite=case["mode"])
    writer = Canned(Answer(case["answer"], not case.get("cut_off", False)))
    try:
        rewriter = Rewriter(RewriteConfig(on_failure="fail"), lambda: writer)
        return rewriter.rewrite(request, lambda: False).request.prompt, ""
    except RewriteError as error:
        return None, str(error)


def table(cases: Sequence[dict[str, Any]]) -> str:
    """A line for each language and one for all: answers by what a person says of them and by what becomes of them."""
    lines = [
        "                    usable               unusable",
        "language  answers    taken  refused    refused    taken",
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
    asking = commands.add_parser("ask", help="ask a server, and keep its answers")
    asking.add_argument("endpoint", help="such as http://127.0.0.1:8080/v1")
    asking.add_argument("--mode", choices=("normal", "master"), default="normal")
    asking.add_argument("--timeout", type=float, default=300, help="seconds for one answer")
    asking.add_argument("--output", type=Path, required=True)
    counting = commands.add_parser("count", help="count what becomes of answers that a person has judged")
    counting.add_argument("judged", type=Path)
    counting.add_argument("--list", action="store_true", help="also print what becomes of each answer")
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
