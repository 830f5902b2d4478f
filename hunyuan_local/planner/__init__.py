"""How much memory and time a request needs in each mode, before any weight is read.

``plan(request, model, machine)`` gives a :class:`Plan` with ``modes`` and ``choice``; ``plan_batch`` a
:class:`BatchPlan` of many videos on several cards; ``detect_machine`` describes this machine. Needs neither
torch nor weights.
"""

from .batch import BatchOption, BatchPlan, BatchSeconds, makespan, plan_batch, seconds_of
from .machine import GpuSpec, Machine, detect_machine, find_gpu, parse_memory
from .modes import Mode
from .plan import plan
from .result import Alternative, ModePlan, Plan

__all__ = [
    "Alternative",
    "BatchOption",
    "BatchPlan",
    "BatchSeconds",
    "GpuSpec",
    "Machine",
    "Mode",
    "ModePlan",
    "Plan",
    "detect_machine",
    "find_gpu",
    "makespan",
    "parse_memory",
    "plan",
    "plan_batch",
    "seconds_of",
]
