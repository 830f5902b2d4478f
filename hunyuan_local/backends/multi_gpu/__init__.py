"""Context parallelism: one video across several GPUs, with one process (rank) per GPU."""
