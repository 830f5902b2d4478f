"""A plain diffusers script against this package: the same weights, prompt, seed and steps.

``stock`` and ``ours`` are the two scripts, each run as a process of its own by ``children``; ``mid`` makes the
checkpoint of medium size; ``floor`` times the kernels of a step alone.
"""
