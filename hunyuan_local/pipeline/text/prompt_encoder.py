"""From prompts to embeddings: the text encoders are loaded for the first prompt that the cache does not know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from diffusers import HunyuanVideoPipeline

from ...config import PromptTemplate
from ...resolved import FilledRequest
from ...schema import GenerationRequest, Progress
from ..memory.device import free_device
from ..memory.placement import Placement
from .prompt_cache import NAMES, Embeddings, PromptCache
from .tokenizers import check_crop_start, find_truncations

TEXT_ENCODERS = ("text_encoder", "text_encoder_2")


class EncodesPrompts(Protocol):
    """What the denoising asks for embeddings."""

    def encode(self, request: FilledRequest, on_note: Callable[[str], None]) -> Embeddings:
        """See :meth:`PromptEncoder.encode`."""
        ...


class PromptEncoder:
    """Encodes with the two text encoders of a pipeline.

    Args:
        pipe: its ``text_encoder`` and ``text_encoder_2`` are None until they are needed.
        template: around every prompt.
        placement: where the encoders compute.
        load: reads the weights of one encoder and places it.
        cache: None keeps nothing on disk.
        staged: makes the cache of a folder for prompts that are encoded ahead; see :meth:`encode_ahead`.
    """

    def __init__(
        self,
        pipe: HunyuanVideoPipeline,
        template: PromptTemplate,
        placement: Placement,
        load: Callable[[str], torch.nn.Module],
        cache: PromptCache | None,
        staged: Callable[[Path], PromptCache],
    ):
        self._pipe, self._template, self._placement = pipe, template, placement
        self._load, self._cache, self._make_staged = load, cache, staged
        self._staged: PromptCache | None = None
        self._last: dict[str, Embeddings] = {}

    def encode(self, request: FilledRequest, on_note: Callable[[str], None]) -> Embeddings:
        """Embeddings of a request's prompts, on the device of the transformer, as the pipeline's call takes them.

        ``prompt_embeds`` [1, 256, 4096], ``pooled_prompt_embeds`` [1, 768] and ``prompt_attention_mask``
        [1, 256] for the 13 B model, and the same with ``negative_`` ahead where a negative prompt has an effect.

        Raises:
            torch.OutOfMemoryError: the device does not hold an encoder.
            ModelLoadError: the encoders cannot be loaded.
        """
        prompts = _prompts_of(request)
        found = {prompt: self._encode(prompt, on_note) for prompt in dict.fromkeys(prompts.values())}
        self._last = found  # a run that is begun anew needs them again
        device = self._placement.device_of("transformer")
        return {
            f"{prefix}{name}": value.to(device)
            for prefix, prompt in prompts.items()
            for name, value in found[prompt].items()
        }

    @torch.no_grad()
    def encode_ahead(
        self,
        folder: Path,
        requests: Sequence[GenerationRequest],
        on_progress: Callable[[Progress], None],
        on_note: Callable[[str], None],
        is_cancelled: Callable[[], bool],
    ) -> None:
        """Encode the prompts of many requests into a folder; then the text encoders leave, and the transformer stays.

        A prompt whose embeddings are there already is passed over, so that several processes may share a
        folder. The embeddings of one prompt of the 13 B model are about 2 MiB.

        Args:
            folder: made if it is not there; from now on also looked into by :meth:`encode`.
            on_progress: told how many of how many distinct prompts are there.
            on_note: told what the user should know.
            is_cancelled: asked before each prompt; what is encoded stays.

        Raises:
            OSError: the folder cannot be written.
            torch.OutOfMemoryError, ModelLoadError: see :meth:`encode`.
        """
        self._staged = self._make_staged(folder)
        self._placement.let_stay(*TEXT_ENCODERS)
        wanted = list(dict.fromkeys(prompt for request in requests for prompt in _prompts_of(request).values()))
        for number, prompt in enumerate(wanted, start=1):
            if is_cancelled():
                break
            if not self._staged.has(prompt):
                self._staged.save(prompt, self._encode(prompt, on_note))
            on_progress(Progress(stage="encode", step=number, total=len(wanted)))
        self._release()
        self.use(folder)

    def use(self, folder: Path) -> None:
        """Take embeddings from a folder that :meth:`encode_ahead` filled; the transformer stays: no encoder comes."""
        self._staged = self._make_staged(folder)
        self._placement.let_stay("transformer")

    def load(self) -> None:
        """Load the text encoders, if they are not loaded."""
        for name in TEXT_ENCODERS:
            if getattr(self._pipe, name) is None:
                self._pipe.register_modules(**{name: self._load(name)})

    def forget(self) -> None:
        """Encode the next prompt even if it is the last one's, unless it is kept on disk."""
        self._last = {}

    def _release(self) -> None:
        """Let go of the text encoders; a prompt that is not known would have them loaded again."""
        for name in TEXT_ENCODERS:
            self._pipe.register_modules(**{name: None})
            self._placement.forget(name)
        free_device()

    def _encode(self, prompt: str, on_note: Callable[[str], None]) -> Embeddings:
        known = self._last.get(prompt)
        for cache in (self._staged, self._cache):
            if known is None and cache is not None:
                known = cache.load(prompt)
        if known is not None:
            return known
        self.load()
        template = self._template.model_dump()
        # The library skips the encoder whose embeddings it is given: so one runs at a time.
        with self._placement.active("text_encoder"):
            embeds, _, mask = self._pipe.encode_prompt(
                prompt, prompt_template=template, pooled_prompt_embeds=torch.empty(0),
                device=self._placement.device_of("text_encoder"),
            )  # fmt: skip
            embeds, mask = embeds.cpu(), mask.cpu()
        with self._placement.active("text_encoder_2"):
            device = self._placement.device_of("text_encoder_2")
            _, pooled, _ = self._pipe.encode_prompt(prompt, prompt_embeds=embeds, device=device)
        encoded = dict(zip(NAMES, (embeds, pooled.cpu(), mask), strict=True))
        if self._cache is not None:
            try:
                self._cache.save(prompt, encoded)
            except OSError as error:
                on_note(f"the encoded prompt cannot be kept: {error}; HUNYUAN_LOCAL_CACHE_DIR chooses another folder")
        return encoded


def _prompts_of(request: GenerationRequest) -> dict[str, str]:
    """The prompts that have an effect, by the prefix of their embeddings."""
    prompts = {"": request.prompt}
    if request.negative_prompt is not None and request.true_cfg_scale > 1:
        prompts["negative_"] = request.negative_prompt
    return prompts


def prompt_notes(pipe: HunyuanVideoPipeline, template: PromptTemplate, request: FilledRequest) -> list[str]:
    """What the user should know about the prompts: text that is not seen or has no effect."""
    notes = check_crop_start(pipe.tokenizer, template)
    for field in ("prompt", "negative_prompt"):
        text = getattr(request, field)
        if text is not None:
            found = find_truncations(pipe.tokenizer, pipe.tokenizer_2, template, text)
            notes += [f"{field} is too long: {truncation}" for truncation in found]
    if request.negative_prompt is not None and request.true_cfg_scale <= 1:
        notes.append("negative_prompt has no effect without true_cfg_scale above 1")
    if request.negative_prompt is None and request.true_cfg_scale > 1:
        notes.append("true_cfg_scale has no effect without negative_prompt")
    return notes
