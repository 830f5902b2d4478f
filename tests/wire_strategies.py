"""Hypothesis strategies shared by the tests of all dialects: requests, jobs, and faulty responses."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from hunyuan_local.schema import GenerationRequest, JobView

unhurried = settings(deadline=None)  # a busy machine must not fail the test

SIZES = [(1280, 720), (720, 1280), (1280, 704), (960, 544), (640, 640), (16, 16384)]
TEXTS = st.text(min_size=1, max_size=60).filter(str.strip)
PROMPTS = TEXTS | st.sampled_from(["a cat", "猫", "x" * 2000, "x" * 2001])
SEEDS = st.integers(0, 2**64 - 1) | st.sampled_from([0, 2**31 - 1, 2**31, 9_999_999_999, 10_000_000_000, 2**64 - 1])
FRAMES = st.integers(0, 60).map(lambda k: 4 * k + 1) | st.sampled_from([81, 85, 129, 133])
LENGTHS = st.integers(1, 1024).map(lambda k: 16 * k)


@st.composite
def requests(draw: st.DrawFn) -> GenerationRequest:
    """Any request within the schema's ranges; each field is sometimes omitted."""
    width, height = draw(st.sampled_from(SIZES) | st.tuples(LENGTHS, LENGTHS))
    sides = draw(st.sampled_from([{}, {"width": width}, {"height": height}, {"width": width, "height": height}]))
    optional = {
        "negative_prompt": st.none() | TEXTS,
        "num_frames": st.none() | FRAMES,
        "num_inference_steps": st.none() | st.integers(1, 100) | st.integers(2, 30),
        "seed": st.none() | SEEDS,
        "guidance_scale": st.none() | st.floats(0, 100),
        "true_cfg_scale": st.just(1.0) | st.floats(1, 100),
        "flow_shift": st.none() | st.floats(0, 100, exclude_min=True),
        "fps": st.none() | st.integers(1, 240),
    }
    # Plain requests are as frequent as full ones: otherwise hardly any would fit a hosted service.
    chosen = draw(st.sampled_from([[], ["num_inference_steps", "seed"], ["num_frames", "seed"], list(optional)]))
    return GenerationRequest(prompt=draw(PROMPTS), **sides, **{name: draw(optional[name]) for name in chosen})


# Whole seconds, which every dialect with timestamps can represent.
MOMENTS = st.integers(1, 4_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))


@st.composite
def jobs(draw: st.DrawFn) -> JobView:
    """Any job whose fields agree with its status."""
    status = draw(st.sampled_from(["queued", "running", "succeeded", "failed", "canceled"]))
    failures = {"failed": ["moderation", "invalid", "execution", "timeout"], "canceled": ["canceled"]}
    return JobView(
        job_id=draw(st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=20)),
        status=status,
        request=draw(st.none() | requests()),
        created_at=draw(MOMENTS),
        completed_at=draw(MOMENTS) if status == "succeeded" else None,
        progress_percent=100 if status == "succeeded" else draw(st.integers(0, 99)),
        eta_s=draw(st.none() | st.integers(1, 10_000)),
        outputs=("https://host/a.mp4",) if status == "succeeded" else (),
        output_ttl_s=draw(st.none() | st.integers(0, 10**6)) if status == "succeeded" else None,
        error=draw(TEXTS) if status in failures else "",
        failure=draw(st.sampled_from(failures[status])) if status in failures else None,
        inference_s=draw(st.none() | st.integers(1, 10**7).map(lambda ms: ms / 1000)),
        seed=draw(st.none() | SEEDS),
        nsfw=draw(st.sampled_from([(), (False,), (True,)])) if status == "succeeded" else (),
    )


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([-1, 0, 2**53, 10**30, "<html>busy</html>", "-1", "9" * 5000, "NaN", ""])
    | st.floats()
    | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def damaged(draw: st.DrawFn, answer: dict[str, Any]) -> Any:
    """A valid response in which one value, anywhere, is missing or replaced."""
    spoilt = copy.deepcopy(answer)
    parent, key = draw(st.sampled_from(_places(spoilt)))
    if draw(st.booleans()):
        parent[key] = draw(JSON)
    else:
        del parent[key]
    return spoilt


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Each (container, key) within a JSON value."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value)) if _is_container(value) else []
    return [(value, key) for key, _ in items] + [place for _, inner in items for place in _places(inner)]


def _is_container(value: Any) -> bool:
    return isinstance(value, dict | list)
