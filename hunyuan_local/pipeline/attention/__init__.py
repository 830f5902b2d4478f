"""Attention without a mask, context parallelism over several GPUs, and rotary position embeddings."""
