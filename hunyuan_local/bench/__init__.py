"""Reproducible benchmarks: the same requests to every backend, every raw run on disk, and reports computed from them.

Independent of pipelines and wire formats: it times backends through `Backend.generate` alone.
"""
