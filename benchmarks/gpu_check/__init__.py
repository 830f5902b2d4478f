"""Implementation of ``scripts/gpu_check``: phases in processes, from the most to the least important, one JSON file.

``command`` runs the ``phases`` within the given minutes, ``process`` and ``task`` are the two ends of their processes,
``plans`` has the planner's predictions, and ``report`` writes the file and the table. The other modules are the work of
the phases: ``card``, ``checkpoint`` (random weights), ``attention``, ``sparse``, ``passes`` and ``videos``.
"""
