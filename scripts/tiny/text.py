"""Tokenizers and text encoders of the built-in checkpoint, in the classes of the 13 B one.

Knows how a prompt becomes embeddings while training; the pipeline does the same when generating.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from . import captions, world

# The shape of the 13 B checkpoint's template (diffusers DEFAULT_PROMPT_TEMPLATE), with a short
# instruction. crop_start is the number of tokens before the prompt, <|begin_of_text|> included.
TEMPLATE = (
    "<|start_header_id|>system<|end_header_id|>\n\nDescribe the video.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
)
# The pipeline reads hidden state -3, so the last two of these four layers are unused, like two of 32
# in the 13 B checkpoint.
LLAMA_LAYERS = 4
SKIPPED_LAYERS = 2
WIDTH = 96

# The template of the 13 B image-to-video checkpoint, likewise short: the picture's tokens stand for <image>.
PICTURE_TEMPLATE = (
    "<|start_header_id|>system<|end_header_id|>\n\n<image>\nDescribe the video.<|eot_id|>\n\n"
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)
IMAGE_TOKEN = "<image>"

_SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<pad>",
            IMAGE_TOKEN)  # fmt: skip
# Llama 3's pre-tokenizer pattern from its published tokenizer.json.
_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass
class TextStack:
    """Both tokenizers with both encoders."""

    tokenizer: PreTrainedTokenizerFast
    text_encoder: LlamaModel
    tokenizer_2: CLIPTokenizer
    text_encoder_2: CLIPTextModel
    crop_start: int

    @property
    def trained(self) -> dict[str, nn.Module]:
        """Both encoders, by the names of the pipeline."""
        return {"text_encoder": self.text_encoder, "text_encoder_2": self.text_encoder_2}

    def encode(
        self, prompts: list[str], pictures: np.ndarray | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What ``HunyuanVideoPipeline.encode_prompt`` computes, padded to the longest prompt only.

        Right padding changes nothing: both encoders are causal and the mask hides the rest. Pictures are ignored.

        Returns:
            ``prompt_embeds`` [B, N, 96], ``pooled_prompt_embeds`` [B, 96], ``prompt_attention_mask`` [B, N].
        """
        tokens = self.tokenizer([TEMPLATE.format(p) for p in prompts], padding=True, return_tensors="pt")
        states = self.text_encoder(**tokens, output_hidden_states=True).hidden_states[-(SKIPPED_LAYERS + 1)]
        clip_tokens = self.tokenizer_2(prompts, padding=True, return_tensors="pt")
        pooled = self.text_encoder_2(clip_tokens.input_ids).pooler_output
        return states[:, self.crop_start :], pooled, tokens.attention_mask[:, self.crop_start :]


def build(seed: int) -> TextStack:
    """Train both tokenizers on captions, complete and partial, in both templates, and initialise encoders for them."""
    rng = np.random.default_rng([seed, 10])
    corpus = [captions.varied(c, rng) for c in world.training_combinations() for _ in range(40)]
    corpus += [
        captions.varied(c, rng, captions.without_some(rng)) for c in world.training_combinations() for _ in range(20)
    ]
    corpus += [captions.only_direction(c.direction, rng) for c in world.training_combinations() for _ in range(4)]
    templates = (TEMPLATE, PICTURE_TEMPLATE)
    tokenizer = _llama_tokenizer([templates[i % 2].format(text) for i, text in enumerate(corpus)])
    tokenizer_2 = _clip_tokenizer(corpus)
    before_prompt = TEMPLATE.split("{}")[0]
    torch.manual_seed(seed)
    llama = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=3 * WIDTH, num_hidden_layers=LLAMA_LAYERS,
        num_attention_heads=3, num_key_value_heads=3, max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    clip = CLIPTextConfig(
        vocab_size=len(tokenizer_2), hidden_size=WIDTH, intermediate_size=3 * WIDTH, num_hidden_layers=2,
        num_attention_heads=3, projection_dim=WIDTH, max_position_embeddings=77, bos_token_id=tokenizer_2.bos_token_id,
        eos_token_id=tokenizer_2.eos_token_id, pad_token_id=tokenizer_2.pad_token_id,
    )  # fmt: skip
    return TextStack(
        tokenizer=tokenizer,
        text_encoder=LlamaModel(llama),
        tokenizer_2=tokenizer_2,
        text_encoder_2=CLIPTextModel(clip),
        crop_start=len(tokenizer(before_prompt).input_ids),
    )


def take_weights(stack: TextStack, checkpoint: Path) -> None:
    """Take over the encoders of a finished checkpoint; a token that it does not know keeps its new embedding."""
    known = PreTrainedTokenizerFast(tokenizer_file=str(checkpoint / "tokenizer/tokenizer.json")).get_vocab()
    known_2 = json.loads((checkpoint / "tokenizer_2/vocab.json").read_text())
    llama = LlamaModel.from_pretrained(checkpoint / "text_encoder", dtype=torch.float32)
    clip = CLIPTextModel.from_pretrained(checkpoint / "text_encoder_2", dtype=torch.float32)
    for new, old, vocabulary, old_vocabulary in (
        (stack.text_encoder, llama, stack.tokenizer.get_vocab(), known),
        (stack.text_encoder_2, clip, stack.tokenizer_2.get_vocab(), known_2),
    ):
        table = new.get_input_embeddings().weight.detach().clone()
        for token, row in vocabulary.items():
            if token in old_vocabulary:
                table[row] = old.get_input_embeddings().weight[old_vocabulary[token]].detach()
        embedding = next(k for k, p in old.named_parameters() if p is old.get_input_embeddings().weight)
        new.load_state_dict(old.state_dict() | {embedding: table})


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Write the tokenizer as in the 13 B checkpoint: correct file, misleading class name."""
    tokenizer.save_pretrained(directory)
    path = directory / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"tokenizer_class": "LlamaTokenizerFast"}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _llama_tokenizer(corpus: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_LLAMA3_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=800, special_tokens=list(_SPECIAL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(corpus, trainer)
    bos = _SPECIAL[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=bos, eos_token=_SPECIAL[1], pad_token="<pad>",
        padding_side="right", model_max_length=512, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def _clip_tokenizer(corpus: list[str]) -> CLIPTokenizer:
    blank = CLIPTokenizer().backend_tokenizer
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.normalizer, trained.pre_tokenizer = blank.normalizer, blank.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=1000, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    trained.train_from_iterator(corpus, trainer)
    model = json.loads(trained.to_str())["model"]
    # CLIP's own order: bytes, bytes that end a word, merges, and the two special tokens last.
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    tokens = alphabet + [letter + "</w>" for letter in alphabet] + ["".join(m) for m in merges]
    tokens = list(dict.fromkeys([*tokens, "<|startoftext|>", "<|endoftext|>"]))
    return CLIPTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=merges, model_max_length=77)
