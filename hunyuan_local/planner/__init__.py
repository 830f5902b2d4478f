"""Estimates how much memory and time a request needs in each mode, before reading any weights.

``plan(request, model, machine)`` returns a :class:`Plan` with ``modes`` and ``choice``; ``plan_batch`` returns a
:class:`BatchPlan` for many videos on several cards; ``detect_machine`` describes this machine. Needs neither torch
nor weights.
"""

from .batch import BatchOption, BatchPlan, BatchSeconds, makespan, plan_batch, seconds_of
from .cards import GpuSpec, find_gpu
from .machine import Machine, detect_machine, parse_memory
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
