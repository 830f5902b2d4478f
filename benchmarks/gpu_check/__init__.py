"""Implementation of ``scripts/gpu_check``: a random checkpoint, measurements in child processes, one JSON file per GPU.

``command`` controls the work, ``checkpoint`` manages the random weights, ``trials`` selects the measurements and their
predictions, and ``report`` writes the file and the tables. ``apart`` starts the processes that run ``card``,
``weights``, ``kernels`` and ``measure``.
"""
