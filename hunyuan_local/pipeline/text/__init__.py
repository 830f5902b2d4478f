"""Text: tokenizers, prompt encoding, a disk cache of encoded prompts, and the language model that rewrites prompts."""
