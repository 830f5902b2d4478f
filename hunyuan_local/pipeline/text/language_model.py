"""A causal language model from transformers that answers messages with its chat template.

Knows nothing about video prompts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, StoppingCriteria, StoppingCriteriaList

from ...config import RewriteConfig, is_offline
from ...config.rewriting import DEFAULT_MODEL
from ...errors import ConfigError, GenerationCancelledError, ModelLoadError, RewriteError, first_line
from ...rewriting.chat_model import Answer, Messages, ShouldStop
from ...weights.cache import is_here
from ...weights.hub import Hub
from ..library_output import quiet_transformers
from ..memory.device import is_out_of_memory
from ..memory.device_allocator import prepare_device_allocator

_REMEDY = (
    "give --rewrite-model a folder or a Hub id of an instruct model, or --rewrite-endpoint the address of a server"
)


@dataclass
class _Watch(StoppingCriteria):  # type: ignore[misc]  # type checkers do not read transformers here
    """Stops the generation at the deadline or when the caller cancels, and records which."""

    deadline: float
    should_stop: ShouldStop
    too_late: bool = False
    stopped: bool = False

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        self.stopped = self.stopped or self.should_stop()
        self.too_late = self.too_late or time.monotonic() >= self.deadline
        done = self.stopped or self.too_late
        return torch.full((input_ids.shape[0],), done, dtype=torch.bool, device=input_ids.device)


class LanguageModel:
    """Writes answers with a language model (:class:`hunyuan_local.rewriting.chat_model.Writer`); greedy, so repeatable.

    Args:
        config: which model; downloaded unless it is here already or downloads are forbidden.
        device: ``cpu`` or ``cuda``.

    Attributes:
        name: the model's Hub id or folder.

    Raises:
        ModelLoadError: the model does not exist or cannot be loaded.
        ConfigError: it has no chat template.
    """

    def __init__(self, config: RewriteConfig, device: str):
        self._config, self._device, self.name = config, device, _model_id(config)
        if device != "cpu":
            prepare_device_allocator()
        source = {"revision": config.revision, "local_files_only": is_offline(), "trust_remote_code": False}
        # Keep the progress bar of a download, which may be gigabytes.
        is_local = Path(self.name).is_dir() or is_here(self.name)
        if not is_local:
            Hub.default().check_download(f"rewrite_model={self.name!r}")
        with _translated(config), quiet_transformers() if is_local else nullcontext():
            self._tokenizer = AutoTokenizer.from_pretrained(self.name, **source)
            if not self._tokenizer.chat_template:
                raise ConfigError(f"rewrite_model={self.name!r}: has no chat template; {_REMEDY}")
            model = AutoModelForCausalLM.from_pretrained(self.name, dtype="auto", use_safetensors=True, **source)
            self._model = model.to(device).eval()

    @torch.no_grad()
    def write(self, messages: Messages, max_new_tokens: int, should_stop: ShouldStop) -> Answer:
        """Answer messages with at most ``max_new_tokens`` tokens.

        Raises:
            RewriteError: the time limit has passed, or the device ran out of memory.
            GenerationCancelledError: ``should_stop`` returned True.
        """
        try:
            return self._write(messages, max_new_tokens, should_stop)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise RewriteError(
                f"{self.name}: the model and the prompt do not fit in the memory of {self._device}; use a smaller "
                "--rewrite-model, or --rewrite-endpoint"
            ) from error

    def _write(self, messages: Messages, max_new_tokens: int, should_stop: ShouldStop) -> Answer:
        watch = _Watch(time.monotonic() + self._config.timeout_s, should_stop)
        try:
            inputs = self._encoded(messages)
        except TemplateError:  # some templates have no system role
            inputs = self._encoded([{"role": "user", "content": "\n\n".join(each["content"] for each in messages)}])
        length = inputs["input_ids"].shape[1]
        found = self._model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            # Unset the sampling defaults of the model's config; they would only cause warnings.
            temperature=None,
            top_p=None,
            top_k=None,
            stopping_criteria=StoppingCriteriaList([watch]),
            pad_token_id=self._tokenizer.pad_token_id or self._tokenizer.eos_token_id,
        )
        if watch.stopped:
            raise GenerationCancelledError("cancelled while rewriting the prompt")
        if watch.too_late:
            raise RewriteError(
                f"{self.name} took longer than {self._config.timeout_s:g} s on {self._device}; raise "
                "--rewrite-timeout, or use a smaller --rewrite-model"
            )
        written = found[0, length:]
        text = self._tokenizer.decode(written, skip_special_tokens=True)
        return Answer(text, complete=len(written) < max_new_tokens)

    def _encoded(self, messages: Messages) -> Any:
        """Tokens of a conversation in the model's chat template."""
        return self._tokenizer.apply_chat_template(
            messages,
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
            enable_thinking=False,  # ignored by templates without this switch
        ).to(self._device)

    def close(self) -> None:
        """Release the model and its device memory."""
        self._model = None
        if self._device != "cpu":
            torch.cuda.empty_cache()


def weight_bytes(config: RewriteConfig) -> int:
    """Bytes of the model's weights in their stored precision, from its configuration alone.

    Raises:
        ModelLoadError: the model does not exist, or its configuration cannot be read.
    """
    with _translated(config), torch.device("meta"):
        found = AutoConfig.from_pretrained(
            _model_id(config), revision=config.revision, local_files_only=is_offline(), trust_remote_code=False
        )
        model = AutoModelForCausalLM.from_config(found, dtype=found.dtype or torch.float32)
    return sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())


def _model_id(config: RewriteConfig) -> str:
    return config.model_id or DEFAULT_MODEL


@contextmanager
def _translated(config: RewriteConfig) -> Iterator[None]:
    """Translate transformers' errors into this package's errors."""
    try:
        yield
    # Not found or not reachable; an unknown architecture; or damaged.
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        first = first_line(error).rstrip(".")
        raise ModelLoadError(f"rewrite_model={_model_id(config)!r}: cannot be loaded: {first}; {_REMEDY}") from error
