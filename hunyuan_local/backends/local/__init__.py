"""The local backend: generates videos on this machine in one process."""
