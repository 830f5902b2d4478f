"""Checkpoints: their files, the Hub cache, downloads and licences.

Does not depend on torch; ``pipeline/`` reads the weights.
"""
