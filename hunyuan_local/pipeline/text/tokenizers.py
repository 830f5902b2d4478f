"""Loads a checkpoint's tokenizers and checks that they read its files correctly.

The checkpoint's Llama tokenizer is a byte-level BPE, but its configuration names the class ``LlamaTokenizerFast``.
Since transformers 5 that class builds a sentencepiece-style tokenizer instead and silently drops spaces and newlines.
So we load ``tokenizer.json`` directly and check the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer
from transformers import CLIPTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ...config import PromptTemplate
from ...errors import ModelLoadError, TokenizerMismatchError

# Limits of HunyuanVideoPipeline.encode_prompt: for Llama the tokens of the prompt, without the template; for CLIP the
# whole sequence, including its begin and end tokens.
LLAMA_MAX_TOKENS = 256
CLIP_MAX_TOKENS = 77

_PROBES = ("a cat walks on grass", "Two  spaces,\na new line, été and 雪", "", "MiXeD CaSe 1234567 (end).")


@dataclass(frozen=True)
class Truncation:
    """Text that an encoder does not see because the prompt is too long."""

    encoder: str
    limit: int
    lost_text: str

    def __str__(self) -> str:
        return f"the {self.encoder} encoder reads only {self.limit} tokens and does not see: {self.lost_text!r}"


def load_llama_tokenizer(folder: Path, template: PromptTemplate) -> PreTrainedTokenizerFast:
    """Load ``folder/tokenizer.json`` and check that it encodes prompts exactly as the file defines.

    Raises:
        ModelLoadError: there is no readable ``tokenizer.json``.
        TokenizerMismatchError: the loaded tokenizer encodes the template differently, or pads on the left.
    """
    if not (folder / "tokenizer.json").is_file():
        raise ModelLoadError(f"{folder}: tokenizer.json is missing; download the checkpoint again")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    check_tokenizer(tokenizer, folder / "tokenizer.json", template)
    return tokenizer


def load_clip_tokenizer(folder: Path) -> CLIPTokenizer:
    """Load the CLIP tokenizer from ``vocab.json`` and ``merges.txt``."""
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, file: Path, template: PromptTemplate) -> None:
    """Compare a loaded tokenizer with the raw ``tokenizer.json`` on filled-in templates.

    Raises:
        TokenizerMismatchError: names the first text that differs.
    """
    raw = Tokenizer.from_file(str(file))
    raw.no_padding()
    raw.no_truncation()
    for probe in _PROBES:
        text = template.template.format(probe)
        if tokenizer(text).input_ids != raw.encode(text).ids:
            raise TokenizerMismatchError(
                f"{file}: loaded as {type(tokenizer).__name__}, it encodes {probe!r} differently from the file "
                "itself, so every prompt would be misread; use the versions of transformers and tokenizers in "
                "constraints.txt, or report this with the output of 'hunyuan-local doctor'"
            )
    if tokenizer.padding_side != "right":
        raise TokenizerMismatchError(
            f"{file}: padding_side={tokenizer.padding_side!r}: must be 'right', because the template is cut off at the "
            "front; correct tokenizer_config.json or download the checkpoint again"
        )


def check_crop_start(tokenizer: PreTrainedTokenizerBase, template: PromptTemplate) -> list[str]:
    """A note if ``crop_start`` differs from the number of template tokens before the prompt; otherwise empty."""
    before = len(tokenizer(template.template.split("{}")[0]).input_ids)
    if before == template.crop_start:
        return []
    return [
        f"the prompt template has {before} tokens before the prompt with this checkpoint's tokenizer, but crop_start "
        f"is {template.crop_start}: the prompt may be cut or mixed with the template; use a config file whose "
        "prompt_template fits the checkpoint (--model FILE.yaml)"
    ]


def find_truncations(
    tokenizer: PreTrainedTokenizerFast, tokenizer_2: CLIPTokenizer, template: PromptTemplate, prompt: str
) -> list[Truncation]:
    """The parts of a prompt that each encoder does not see; empty if the prompt fits both."""
    before = template.template.split("{}")[0]
    llama_limit = LLAMA_MAX_TOKENS + template.crop_start
    lost_to_llama = _lost_text(tokenizer, template.template.format(prompt), llama_limit, prompt, len(before))
    lost_to_clip = _lost_text(tokenizer_2, prompt, CLIP_MAX_TOKENS - 1, prompt, 0)
    found = [
        Truncation("Llama", LLAMA_MAX_TOKENS, lost_to_llama),
        Truncation("CLIP", CLIP_MAX_TOKENS - 2, lost_to_clip),
    ]
    return [truncation for truncation in found if truncation.lost_text]


def _lost_text(tokenizer: PreTrainedTokenizerBase, text: str, limit: int, prompt: str, prompt_start: int) -> str:
    """The part of ``prompt`` that corresponds to the tokens from index ``limit`` on.

    A special token has the empty span (0, 0), so CLIP's end token counts as no loss.
    """
    spans = tokenizer(text, return_offsets_mapping=True, verbose=False).offset_mapping
    starts = [start for start, end in spans[limit:] if end > start]
    return prompt[max(0, starts[0] - prompt_start) :] if starts and starts[0] < prompt_start + len(prompt) else ""
