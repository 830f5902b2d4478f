"""Checkpoints on this machine: which files they have, where they lie, how they get here, under which licence.

Knows nothing about torch: what is in the files is read in ``pipeline/``.
"""
