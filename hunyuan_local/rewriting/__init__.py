"""Has a language model rewrite prompts, and takes only what is a prompt."""

from .rewriter import Rewriter

__all__ = ["Rewriter"]
