"""Encodes prompts; loads the text encoders for the first prompt that is not in the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

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


class PromptEncoder:
    """Encodes prompts with the two text encoders of a pipeline.

    Args:
        pipe: its ``text_encoder`` and ``text_encoder_2`` are None until they are needed.
        template: the template around every prompt.
        placement: where the encoders compute.
        load: reads one encoder's weights and places it.
        cache: the disk cache; None for none.
        staged: creates the cache in a folder of prompts that are encoded ahead; see :meth:`encode_ahead`.
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
        self._has_encoded = False

    def encode(self, request: FilledRequest, on_note: Callable[[str], None]) -> Embeddings:
        """Embeddings of a request's prompts, on the transformer's device, named as in the pipeline's ``__call__``.

        Memory that the text encoders used is given back, so that all of it is available to the denoising.

        For the 13 B model: ``prompt_embeds`` [1, 256, 4096], ``pooled_prompt_embeds`` [1, 768] and
        ``prompt_attention_mask`` [1, 256]; the same with the prefix ``negative_`` if a negative prompt has an effect.

        Raises:
            torch.OutOfMemoryError: an encoder does not fit on the device.
            ModelLoadError: the encoders cannot be loaded.
        """
        prompts = _prompts_of(request)
        found = {prompt: self._encode(prompt, on_note) for prompt in dict.fromkeys(prompts.values())}
        self._last = found  # a run that is retried needs them again
        if self._has_encoded:
            free_device()
            self._has_encoded = False
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
        """Encode the prompts of many requests into a folder; then release the text encoders.

        Prompts that are already in the folder are skipped, so several processes can share it. Embeddings of one
        prompt take about 2 MiB for the 13 B model.

        Args:
            folder: created if missing; from now on :meth:`encode` looks there too.
            requests: the requests whose prompts to encode.
            on_progress: called with the number of distinct prompts finished, and their total.
            on_note: called with messages for the user.
            is_cancelled: polled before each prompt; finished prompts stay in the folder.

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
        """Use the embeddings in a folder of :meth:`encode_ahead`, and keep the transformer on the device."""
        self._staged = self._make_staged(folder)
        self._placement.let_stay("transformer")

    def load(self) -> None:
        """Load the text encoders if they are not loaded."""
        for name in TEXT_ENCODERS:
            if getattr(self._pipe, name) is None:
                self._pipe.register_modules(**{name: self._load(name)})

    def forget(self) -> None:
        """Forget the last embeddings in memory; those on disk are kept."""
        self._last = {}

    def _release(self) -> None:
        """Release the text encoders; an unknown prompt would load them again."""
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
        self._has_encoded = True
        template = self._template.model_dump()
        # Given embeddings make diffusers skip their encoder, so only one encoder runs, and is on the device, at a time.
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
                on_note(f"the encoded prompt cannot be cached: {error}; set HUNYUAN_LOCAL_CACHE_DIR to another folder")
        return encoded


def _prompts_of(request: GenerationRequest) -> dict[str, str]:
    """The prompts that have an effect, by the prefix of their embeddings' names."""
    prompts = {"": request.prompt}
    if request.negative_prompt is not None and request.true_cfg_scale > 1:
        prompts["negative_"] = request.negative_prompt
    return prompts


def prompt_notes(pipe: HunyuanVideoPipeline, template: PromptTemplate, request: FilledRequest) -> list[str]:
    """Notes for the user about prompts that are cut off or have no effect."""
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
