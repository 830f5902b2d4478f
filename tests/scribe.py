"""A language model small enough to create in a test: real classes, trained to memorise three conversations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hunyuan_local.config import load_rewrite_template

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM

PROMPT = "a red circle moving right on a black background"
ANSWERS = {
    ("normal", PROMPT): "a red circle moves to the right on a black background",
    ("master", PROMPT): "a red circle moves to the right on a black background in soft light filmed by a fixed camera",
    ("normal", "a blue square"): "sorry, that is nothing to be filmed",
}
TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
_STEPS = 400


def make_scribe(folder: Path, *, chat_template: str | None = TEMPLATE, steps: int = _STEPS) -> Path:
    """Write a folder with ``save_pretrained``; without training (0 steps) the model generates random text."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    texts = [_conversation(mode, prompt, answer) for (mode, prompt), answer in ANSWERS.items()]
    special = ["<unk>", "<end>", "<system>", "<user>", "<assistant>"]
    words = sorted({word for text in texts for word in text.split()} - set(special))
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(special + words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>", pad_token="<end>")
    fast.chat_template = chat_template
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(special) + len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=1024, eos_token_id=1, pad_token_id=1,
        bos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    _train(model, [torch.tensor(tokenizer.encode(text).ids) for text in texts], steps)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def _conversation(mode: str, prompt: str, answer: str) -> str:
    system = load_rewrite_template(mode).system.strip()
    return f"<system> {system} <end> <user> {prompt} <end> <assistant> {answer} <end>"


def _train(model: LlamaForCausalLM, texts: list[torch.Tensor], steps: int) -> None:
    """Train on the answers; text before ``<assistant>`` does not count."""
    import torch

    batch = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=1)
    labels = torch.full_like(batch, -100)
    for row, text in enumerate(texts):
        begin = (text == 4).nonzero()[0, 0] + 1
        labels[row, begin : len(text)] = text[begin:]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(steps):
        loss = model(input_ids=batch, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.005:
            break
    model.eval()
