"""How much memory and time a request needs in each mode, before any weight is read.

``plan(request, model, machine)`` gives a :class:`Plan` with ``modes`` and ``choice``; ``detect_machine``
describes this machine. Needs neither torch nor weights.
"""

from .machine import GpuSpec, Machine, detect_machine, find_gpu, parse_size
from .modes import Mode
from .plan import plan
from .result import Alternative, ModePlan, Plan

__all__ = [
    "Alternative",
    "GpuSpec",
    "Machine",
    "Mode",
    "ModePlan",
    "Plan",
    "detect_machine",
    "find_gpu",
    "parse_size",
    "plan",
]
