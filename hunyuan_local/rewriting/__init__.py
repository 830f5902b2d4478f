"""Rewrites prompts with a language model and accepts only answers that are usable prompts."""

from .rewriter import Rewriter

__all__ = ["Rewriter"]
