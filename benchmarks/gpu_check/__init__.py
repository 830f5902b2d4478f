"""Implementation of ``scripts/gpu_check``: phases in processes, from the most to the least important, one JSON file.

``command`` runs the ``phases`` within the given minutes, ``apart`` starts their processes, ``plans`` has the planner's
predictions, and ``report`` writes the file and the table. The other modules are the work of the phases, in their
processes: ``card``, ``checkpoint`` (random weights), ``kernels``, ``sparse``, ``variants``, ``offload`` and ``videos``.
"""
