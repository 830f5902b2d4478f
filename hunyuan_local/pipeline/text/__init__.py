"""Prompts: encoded, kept on disk, rewritten by a language model."""
