"""Backends: ways to make a video from a request, all behind one verb, ``generate``."""
