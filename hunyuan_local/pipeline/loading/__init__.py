"""Builds a model from the files of a checkpoint: weights, precisions, tokenizers, LoRA."""
