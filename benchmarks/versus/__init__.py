"""Compares a plain diffusers script with this package: the same weights, prompt, seed and steps.

``stock`` and ``ours`` are the two scripts, which ``children`` runs in separate processes; ``mid`` creates the
medium-sized checkpoint; ``floor`` times the kernels of a step alone.
"""
