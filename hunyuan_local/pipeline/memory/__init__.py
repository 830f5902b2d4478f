"""The device and its memory: where each component is, how much memory is free, and how to free it."""
