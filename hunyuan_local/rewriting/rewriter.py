"""One prompt in the place of another: asks the language model, checks its answer, and keeps to the failure policy."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ..config import RewriteConfig, load_answer_phrases, load_rewrite_template
from ..errors import ModelLoadError, RewriteError
from ..schema import GenerationRequest
from .answer import to_prompt
from .endpoint import EndpointWriter
from .writer import Messages, ShouldStop, Writer


@dataclass(frozen=True)
class Rewriting:
    """What came of it: the request, seconds, and what the user should know."""

    request: GenerationRequest
    seconds: float
    note: str


class Rewriter:
    """Rewrites prompts with one language model, which it keeps.

    Args:
        config: which model, and what to do if it fails.
        make_writer: makes the model of this machine; called again after :meth:`close`.
    """

    def __init__(self, config: RewriteConfig, make_writer: Callable[[], Writer]):
        self.config = config
        self._make_writer = make_writer if config.endpoint is None else lambda: EndpointWriter(config)
        self._writer: Writer | None = None

    def rewrite(
        self, request: GenerationRequest, should_stop: ShouldStop, max_characters: int | None = None
    ) -> Rewriting:
        """The request with its prompt rewritten, and the one it had as its ``original_prompt``.

        Where that fails and the policy allows it, the prompt stays as it is, and is its own original.

        Args:
            request: one that ``awaits_rewriting``.
            should_stop: looked at while the model writes.
            max_characters: the longest prompt that is of use, if that is less than the template's.

        Raises:
            RewriteError, ModelLoadError: it failed, and the policy is ``fail``.
            ConfigError: the model or the endpoint cannot be what was meant.
            GenerationCancelledError: ``should_stop`` said so.
        """
        began = time.monotonic()
        try:
            prompt, name = self._write(request, should_stop, max_characters)
        except (RewriteError, ModelLoadError) as error:
            if self.config.on_failure == "fail":
                error.hint = "--rewrite-failure use-original would go on with the prompt as it is"
                raise
            note = f"the prompt is used as it is, since it could not be rewritten: {error}"
            return Rewriting(request.replace(original_prompt=request.prompt), time.monotonic() - began, note)
        seconds = time.monotonic() - began
        note = f"the prompt was rewritten in {seconds:.1f} s by {name} ({request.rewrite}): {prompt}"
        return Rewriting(request.replace(prompt=prompt, original_prompt=request.prompt), seconds, note)

    def close(self) -> None:
        """Give back the model's memory; it is loaded again when it is needed."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _write(
        self, request: GenerationRequest, should_stop: ShouldStop, max_characters: int | None
    ) -> tuple[str, str]:
        """The new prompt, and who wrote it."""
        assert request.rewrite is not None  # it awaits rewriting
        template = load_rewrite_template(request.rewrite)
        longest = min(template.max_characters, max_characters or template.max_characters)
        if len(request.prompt) > longest:
            raise RewriteError(
                f"the prompt has {len(request.prompt)} characters, of which a rewritten one may have {longest}; "
                "shorten it, or leave the rewriting out"
            )
        self._writer = self._writer or self._make_writer()
        messages: Messages = [
            {"role": "system", "content": template.system.strip()},
            {"role": "user", "content": request.prompt},
        ]
        answer = self._writer.write(messages, template.max_new_tokens, should_stop)
        if not answer.complete:
            raise RewriteError(f"the language model was not at its end after {template.max_new_tokens} tokens")
        return to_prompt(answer.text, request.prompt, longest, load_answer_phrases()), self._writer.name
