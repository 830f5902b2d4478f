"""From the files of a checkpoint to a model: weights, precisions, tokenizers, LoRA."""
