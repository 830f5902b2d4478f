"""Rewrites one prompt: calls the language model, checks its answer, and applies the failure policy."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ..config import RewriteConfig, load_answer_phrases, load_rewrite_template
from ..errors import ModelLoadError, RewriteError
from ..schema import GenerationRequest
from .answer import to_prompt
from .chat_model import Messages, ShouldStop, Writer
from .endpoint import EndpointWriter


@dataclass(frozen=True)
class Rewriting:
    """The result of rewriting: the new request, the time in seconds, and the note for the user."""

    request: GenerationRequest
    seconds: float
    note: str


class Rewriter:
    """Rewrites prompts with one language model, which stays loaded.

    Args:
        config: the model, and the failure policy.
        make_writer: loads the local model; called again after :meth:`close`.
    """

    def __init__(self, config: RewriteConfig, make_writer: Callable[[], Writer]):
        self.config = config
        self._make_writer = make_writer if config.endpoint is None else lambda: EndpointWriter(config)
        self._writer: Writer | None = None

    def rewrite(
        self, request: GenerationRequest, should_stop: ShouldStop, max_characters: int | None = None
    ) -> Rewriting:
        """Rewrite the prompt of a request and keep the old one as its ``original_prompt``.

        If rewriting fails and the policy is ``use-original``, the prompt is unchanged and equals ``original_prompt``.

        Args:
            request: a request with ``awaits_rewriting``.
            should_stop: polled while the model writes.
            max_characters: maximum length of the prompt, if less than that of the template.

        Raises:
            RewriteError, ModelLoadError: rewriting failed, and the policy is ``fail``.
            ConfigError: the model or the endpoint is invalid.
            GenerationCancelledError: ``should_stop`` returned True.
        """
        began = time.monotonic()
        try:
            prompt, name = self._write(request, should_stop, max_characters)
        except (RewriteError, ModelLoadError) as error:
            if self.config.on_failure == "fail":
                error.hint = "to continue with the original prompt, use --rewrite-failure use-original"
                raise
            note = f"using the original prompt, since it could not be rewritten: {error}"
            return Rewriting(request.replace(original_prompt=request.prompt), time.monotonic() - began, note)
        seconds = time.monotonic() - began
        note = f"the prompt was rewritten in {seconds:.1f} s by {name} ({request.rewrite}): {prompt}"
        return Rewriting(request.replace(prompt=prompt, original_prompt=request.prompt), seconds, note)

    def close(self) -> None:
        """Release the model's memory; the model is loaded again when needed."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _write(
        self, request: GenerationRequest, should_stop: ShouldStop, max_characters: int | None
    ) -> tuple[str, str]:
        """The new prompt, and the name of the model."""
        assert request.rewrite is not None  # it awaits rewriting
        template = load_rewrite_template(request.rewrite)
        longest = min(template.max_characters, max_characters or template.max_characters)
        if len(request.prompt) > longest:
            raise RewriteError(
                f"the prompt is {len(request.prompt)} characters long, and the limit for rewriting is {longest}; "
                "shorten it, or omit --rewrite"
            )
        self._writer = self._writer or self._make_writer()
        messages: Messages = [
            {"role": "system", "content": template.system.strip()},
            {"role": "user", "content": request.prompt},
        ]
        answer = self._writer.write(messages, template.max_new_tokens, should_stop)
        if not answer.complete:
            raise RewriteError(f"the language model did not finish within {template.max_new_tokens} tokens")
        return to_prompt(answer.text, request.prompt, longest, load_answer_phrases()), self._writer.name
