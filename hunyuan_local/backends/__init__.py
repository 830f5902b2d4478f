"""Backends: each generates a video from a request with one method, ``generate``."""
