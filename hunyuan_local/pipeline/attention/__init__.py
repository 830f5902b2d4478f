"""Attention: without a mask, over several GPUs, and the rotary positions of queries and keys."""
