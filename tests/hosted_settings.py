"""Shared by the tests of hosted backends: the adapters, short intervals, and a request that both services support."""

from __future__ import annotations

from dataclasses import dataclass

from standin import StandIn

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.hosted.client import Pacing
from hunyuan_local.backends.hosted.novita import NovitaBackend
from hunyuan_local.backends.hosted.open_tasks import OpenTasks
from hunyuan_local.backends.hosted.wavespeed import WaveSpeedBackend
from hunyuan_local.schema import GenerationRequest, GenerationResult

BACKENDS = [WaveSpeedBackend, NovitaBackend]
QUICK = Pacing(first_s=0.01, longest_s=0.05, patience_s=5, answer_s=5, limit_s=30)
REQUEST = GenerationRequest(prompt="a fox runs through snow", seed=11, num_inference_steps=4)


@dataclass(frozen=True)
class Made:
    """A finished video and what generating it left."""

    standin: StandIn
    open_tasks: OpenTasks
    context: GenerationContext
    result: GenerationResult
