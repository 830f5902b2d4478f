"""Benchmarks that can be believed: the same requests to every backend, raw runs on disk, and what they say.

Knows nothing about pipelines or the formats of services: it times backends through the verb they all have.
"""
