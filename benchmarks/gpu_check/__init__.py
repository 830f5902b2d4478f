"""What ``scripts/gpu_check`` does: a random checkpoint, measurements in processes of their own, one JSON file a GPU.

``command`` has the order of the work, ``checkpoint`` the random weights, ``trials`` what is to be measured and
what the plan expects of it, ``report`` the file and the tables. ``apart`` starts the processes, in which
``card``, ``weights``, ``kernels`` and ``measure`` run.
"""
