"""Placement of the language model: on the GPU with the video model only if both fit according to the planner."""

from __future__ import annotations

from pathlib import Path

import pytest

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.local import profile_choice
from hunyuan_local.backends.local.profile_choice import Choice, named_profile, place_beside
from hunyuan_local.backends.prompt_rewriting import OVERHEAD, Place, PromptRewriter
from hunyuan_local.config import GIB, RewriteConfig, load_model_config
from hunyuan_local.planner import Machine, Mode, find_gpu
from hunyuan_local.planner.plan import weigh
from hunyuan_local.resolved import ResolvedRequest
from hunyuan_local.schema import GenerationRequest

MODEL = load_model_config("hunyuan-video")
REQUEST = ResolvedRequest.of(GenerationRequest(prompt="a fox", seed=1), dict(MODEL.defaults))
MACHINE = Machine(80 * GIB, 128 * GIB, find_gpu("h100"))
MODE = Mode("group", None, True)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_choice, "available_machine", lambda: MACHINE)


def place(needed_bytes: int, is_empty: bool = False) -> Place:
    profile = named_profile(MODE.name).model_copy(update={"device": "cuda"})
    return place_beside(REQUEST, MODEL, Choice(profile), is_empty=is_empty)(needed_bytes)


def left_beside() -> int:
    return MACHINE.gpu_memory_bytes - weigh(REQUEST, MODEL, MACHINE, MODE).needed_gpu_bytes


def test_what_the_plan_has_room_for_stays_on_the_gpu() -> None:
    assert place(left_beside()) == Place("cuda", stays=True)


def test_a_byte_more_goes_to_the_cpu() -> None:
    assert place(left_beside() + 1) == Place("cpu")


def test_before_the_video_model_is_loaded_it_may_use_the_gpu_for_the_moment() -> None:
    assert place(left_beside() + 1, is_empty=True) == Place("cuda", stays=False)


def test_what_the_gpu_does_not_hold_at_all_goes_to_the_cpu() -> None:
    assert place(MACHINE.gpu_memory_bytes, is_empty=True) == Place("cpu")


def test_a_profile_for_the_cpu_leaves_the_gpu_alone() -> None:
    assert place_beside(REQUEST, MODEL, Choice(named_profile("cpu")), is_empty=True)(1) == Place("cpu")


def test_without_a_gpu_there_is_only_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_choice, "available_machine", lambda: Machine(None, 24 * GIB))
    assert place(1, is_empty=True) == Place("cpu")


def test_a_choice_that_knows_the_machine_is_not_asked_for_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_choice, "available_machine", lambda: pytest.fail("the machine was asked"))
    profile = named_profile(MODE.name).model_copy(update={"device": "cuda"})
    assert place_beside(REQUEST, MODEL, Choice(profile, machine=MACHINE), is_empty=True)(1) == Place("cuda")


def test_the_place_is_asked_for_with_what_the_model_needs(scribe: Path) -> None:
    from hunyuan_local.pipeline.text.language_model import weight_bytes

    asked = []
    config = RewriteConfig(model_id=str(scribe))
    PromptRewriter().rewrite(
        GenerationRequest(prompt="a red circle moving right on a black background", rewrite="normal"),
        GenerationContext(rewriting=config),
        lambda needed: asked.append(needed) or Place(),
    )
    assert asked == [round(weight_bytes(config) * (1 + OVERHEAD))]


class Recorder:
    """A rewriter of which only ``close`` matters."""

    closed = False

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("now", "closed"), [(Place("cuda"), False), (Place("cuda", stays=False), True), (Place("cpu"), True)]
)
def test_a_video_next_to_which_it_does_not_fit_drives_it_off_the_gpu(now: Place, closed: bool) -> None:
    found, rewriter = PromptRewriter(), Recorder()
    found._rewriter, found._place = rewriter, Place("cuda")
    found.make_room(lambda needed: now)
    assert rewriter.closed == closed


def test_on_the_cpu_it_is_left_alone() -> None:
    found, rewriter = PromptRewriter(), Recorder()
    found._rewriter = rewriter
    found.make_room(lambda needed: pytest.fail("the plan was asked"))
    assert not rewriter.closed
