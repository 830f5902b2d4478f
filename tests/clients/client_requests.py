"""Requests that the clients send: as the services document them, but with small videos."""

from __future__ import annotations

import itertools
from typing import Any

PROMPT = "a red circle moving right on a black background"
WAVESPEED_MODEL = "wavespeed-ai/hunyuan-video/t2v"

# Quick to generate; the smallest size that the pages allow takes ten times as long on a CPU.
SMALL_WAVESPEED = {"size": "320*176"}
SMALL_NOVITA = {"width": 320, "height": 176, "frames": 5}

_seeds = itertools.count(1000)


def next_seed() -> int:
    """A seed that is unique in this session, so that its job can be found by it."""
    return next(_seeds)


def wavespeed_body(**changes: Any) -> dict[str, Any]:
    """The shortest job that the page allows."""
    return {"prompt": PROMPT, "size": "1280*720", "seed": 7, "num_inference_steps": 2} | changes


def novita_body(**changes: Any) -> dict[str, Any]:
    """The shortest job that the page allows."""
    body = {"model_name": "hunyuan-video-fast", "prompt": PROMPT, "width": 1280, "height": 720}
    return body | {"seed": 7, "steps": 2, "frames": 85} | changes
