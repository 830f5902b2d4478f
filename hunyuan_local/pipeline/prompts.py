"""From prompts to embeddings: the text encoders are loaded for the first prompt that the cache does not know."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import HunyuanVideoPipeline

from ..config import PromptTemplate
from ..schema import GenerationRequest
from .placement import Placement
from .prompt_cache import NAMES, Embeddings, PromptCache
from .tokenizers import check_crop_start, find_truncations

TEXT_ENCODERS = ("text_encoder", "text_encoder_2")


class PromptEncoder:
    """Encodes with the two text encoders of a pipeline.

    Args:
        pipe: its ``text_encoder`` and ``text_encoder_2`` are None until they are needed.
        template: around every prompt.
        placement: where the encoders compute.
        load: reads the weights of one encoder and places it.
        cache: None keeps nothing on disk.
    """

    def __init__(
        self,
        pipe: HunyuanVideoPipeline,
        template: PromptTemplate,
        placement: Placement,
        load: Callable[[str], torch.nn.Module],
        cache: PromptCache | None,
    ):
        self._pipe, self._template, self._placement = pipe, template, placement
        self._load, self._cache = load, cache
        self._last: dict[str, Embeddings] = {}

    def encode(self, request: GenerationRequest, on_note: Callable[[str], None]) -> Embeddings:
        """Embeddings of a request's prompts, on the device of the transformer, as the pipeline's call takes them.

        ``prompt_embeds`` [1, 256, 4096], ``pooled_prompt_embeds`` [1, 768] and ``prompt_attention_mask``
        [1, 256] for the 13 B model, and the same with ``negative_`` ahead where a negative prompt has an effect.

        Raises:
            torch.OutOfMemoryError: the device does not hold an encoder.
            ModelLoadError: the encoders cannot be loaded.
        """
        prompts = {"": request.prompt}
        if request.negative_prompt is not None and request.true_cfg_scale > 1:
            prompts["negative_"] = request.negative_prompt
        found = {prompt: self._encode(prompt, on_note) for prompt in dict.fromkeys(prompts.values())}
        self._last = found  # a run that is begun anew needs them again
        device = self._placement.device_of("transformer")
        return {
            f"{prefix}{name}": value.to(device)
            for prefix, prompt in prompts.items()
            for name, value in found[prompt].items()
        }

    def load(self) -> None:
        """Load the text encoders, if they are not loaded."""
        for name in TEXT_ENCODERS:
            if getattr(self._pipe, name) is None:
                self._pipe.register_modules(**{name: self._load(name)})

    def _encode(self, prompt: str, on_note: Callable[[str], None]) -> Embeddings:
        known = self._last.get(prompt) or (self._cache and self._cache.load(prompt))
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


def prompt_notes(pipe: HunyuanVideoPipeline, template: PromptTemplate, request: GenerationRequest) -> list[str]:
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
