"""What the plan decides apart from the mode: where text encoders are between prompts, compiling; and its warnings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hunyuan_local.backends.local.profile_choice import choose_profile, with_cache
from hunyuan_local.config import FirstBlockCache, load_model_config
from hunyuan_local.config.allocator import Allocator
from hunyuan_local.planner import Machine, ModePlan, find_gpu, plan, plan_batch
from hunyuan_local.planner.compiling import MARGIN
from hunyuan_local.planner.time_estimate import COMPILE_SECONDS, PAGEABLE_GBS
from hunyuan_local.schema import GenerationRequest

LARGE = load_model_config("hunyuan-video")
REQUEST = GenerationRequest(prompt="any", width=1280, height=720, num_frames=129, num_inference_steps=50)
GIB = 2**30
WITHOUT = Allocator(expandable=False)


def machine(gpu: str, **changes: object) -> Machine:
    spec = find_gpu(gpu)
    return replace(Machine(spec.memory_bytes, 128 * GIB, spec), **changes)


def modes(gpu: str, videos: int = 1, **changes: object) -> dict[str, ModePlan]:
    return {item.name: item for item in plan(REQUEST, LARGE, machine(gpu, **changes), videos=videos).modes}


# The text encoders.


def test_on_a_card_with_room_the_text_encoders_stay() -> None:
    found = modes("h100")["none+tiling"]
    named = {x.name: x for x in plan(REQUEST, LARGE, machine("h100"), as_named=True).modes}["none+tiling"]
    assert found.text_stays and found.seconds.visit == 0
    assert found.peaks["denoise"].gpu_bytes - named.peaks["denoise"].gpu_bytes == pytest.approx(15.26e9, rel=0.01)


def test_on_a_card_without_room_they_leave() -> None:
    found = modes("l40s")["none+tiling"]
    assert not found.text_stays and found.seconds.visit > 1


def test_room_is_what_they_need_at_the_upper_end_of_the_range() -> None:
    enough = modes("h100")["none+tiling"].needed_gpu_range[1]
    assert modes("h100", gpu_memory_bytes=enough)["none+tiling"].text_stays
    assert not modes("h100", gpu_memory_bytes=enough - 2**20)["none+tiling"].text_stays


def test_with_offload_the_text_encoders_never_stay() -> None:
    assert [name for name, item in modes("h200").items() if item.text_stays and item.mode.offload != "none"] == []


def test_the_profile_that_is_chosen_keeps_them_on_the_device() -> None:
    profile = choose_profile(REQUEST, LARGE, machine=machine("h100")).profile
    assert (profile.residence("text_encoder"), profile.residence("text_encoder_2")) == ("device", "device")


def test_a_profile_of_a_small_card_lets_them_visit() -> None:
    assert choose_profile(REQUEST, LARGE, machine=machine("l40s")).profile.residence("text_encoder") == "visit"


def test_a_loaded_model_that_keeps_them_there_is_replaced_for_a_video_without_room_for_them() -> None:
    loaded = choose_profile(REQUEST, LARGE, machine=machine("h100")).profile
    full = modes("h100")["none+tiling"].needed_gpu_range[1]
    assert choose_profile(REQUEST, LARGE, loaded, machine("h100")).profile == loaded
    tight = choose_profile(REQUEST, LARGE, loaded, machine("h100", gpu_memory_bytes=full - GIB)).profile
    assert (tight.offload, tight.residence("text_encoder")) == ("none", "visit")


def test_modes_planned_as_named_let_them_visit_and_are_not_compiled() -> None:
    found = plan(REQUEST, LARGE, machine("h100"), videos=100, as_named=True)
    assert not any(item.text_stays or item.compile for item in found.modes)


# Group offload.


def test_what_is_outside_the_blocks_is_copied_once_a_video() -> None:
    seconds = modes("4090")["group+tiling"].seconds
    assert seconds.denoise - 50 * seconds.step == pytest.approx(0.72 / PAGEABLE_GBS, rel=0.01)


def test_it_leaves_before_the_video_is_decoded() -> None:
    found = modes("4090")
    assert found["group+tiling"].peaks["decode"].gpu_bytes == found["model+tiling"].peaks["decode"].gpu_bytes


# Fragmentation.


def test_without_expandable_segments_the_same_mode_needs_more() -> None:
    default, expandable = modes("4090", allocator=WITHOUT), modes("4090")
    assert default["group+tiling"].needed_gpu_bytes > 1.5 * expandable["group+tiling"].needed_gpu_bytes
    assert default["group+tiling"].gpu_peak_bytes == expandable["group+tiling"].gpu_peak_bytes


def test_a_card_that_is_just_large_enough_is_so_with_expandable_segments_alone() -> None:
    enough = modes("4080")["group+tiling"].needed_gpu_bytes
    assert modes("4080", gpu_memory_bytes=enough)["group+tiling"].fits
    assert not modes("4080", gpu_memory_bytes=enough, allocator=WITHOUT)["group+tiling"].fits


@pytest.mark.parametrize(
    ("allocator", "said"),
    [
        (Allocator(), "nobody has measured with this model"),
        (WITHOUT, "measured on an H100 without expandable segments"),
    ],
)
def test_the_plan_says_what_its_fragmentation_rests_on(allocator: Allocator, said: str) -> None:
    text = " ".join(plan(REQUEST, LARGE, machine("4090", allocator=allocator)).assumptions)
    assert said in text and "times (" in text


# Compiling.


def test_one_video_on_an_h100_is_not_compiled() -> None:
    compiling = modes("h100")["none+tiling"].compiling
    assert not compiling.pays and 0 < compiling.saved < MARGIN * COMPILE_SECONDS


def test_many_videos_are() -> None:
    assert modes("h100", videos=1000)["none+tiling"].compile


def test_what_compiling_saves_and_costs_is_in_the_time() -> None:
    eager, compiled = modes("h100")["none+tiling"].seconds, modes("h100", videos=1000)["none+tiling"].seconds
    saved = modes("h100")["none+tiling"].compiling.saved_a_step
    assert eager.step - compiled.step == pytest.approx(saved)
    assert compiled.first - compiled.total == pytest.approx(COMPILE_SECONDS)


def test_the_plan_says_why_it_compiles() -> None:
    notes = plan(REQUEST, LARGE, machine("h100"), videos=1000).notes
    assert any(note.startswith("compile: chosen: about 60 s once, about ") for note in notes)


def test_the_plan_says_why_it_does_not() -> None:
    assert any(
        note.startswith("compile: not chosen: about 60 s once") for note in plan(REQUEST, LARGE, machine("h100")).notes
    )


def test_without_a_compiler_nothing_is_compiled() -> None:
    found = plan(REQUEST, LARGE, machine("h100", why_not_compile="there is no C compiler"), videos=1000)
    assert not found.choice.compile and "compile: not chosen: there is no C compiler" in found.notes


@pytest.mark.parametrize("name", ["group+tiling", "sequential+tiling", "none+fp8+tiling", "none+nf4+tiling"])
def test_streamed_and_quantized_blocks_are_not_compiled(name: str) -> None:
    assert modes("h200", videos=1000)[name].compiling is None


def test_the_profile_that_is_chosen_is_compiled_where_it_pays() -> None:
    assert choose_profile(REQUEST, LARGE, machine=machine("h100"), videos=1000).profile.compile
    assert not choose_profile(REQUEST, LARGE, machine=machine("h100")).profile.compile


def test_the_note_of_the_choice_says_what_was_decided_and_that_the_time_is_a_guess() -> None:
    slow = machine("l40s", gpu_memory_bytes=80 * GIB)
    reason = choose_profile(REQUEST, LARGE, machine=slow, videos=1000).reason
    assert "min, a guess for this GPU, not counting model loading" in reason
    assert "the text encoders stay on the GPU between prompts; compile: chosen: about 60 s once" in reason


def test_a_batch_counts_the_time_to_compile_once_for_each_process() -> None:
    found = plan_batch(REQUEST, LARGE, machine("h100"), 4, 4000).of("replicas")
    option = next(item for item in found if item.plan.name == "none+tiling")
    loading = next(item for item in found if item.plan.name == "none+fp8+tiling").seconds.load
    assert option.plan.compile and option.seconds.load == pytest.approx(loading + COMPILE_SECONDS)


def test_a_step_cache_takes_precedence_over_compiling_by_the_plan() -> None:
    profile = choose_profile(REQUEST, LARGE, machine=machine("h100"), videos=1000).profile
    assert not with_cache(profile, FirstBlockCache(kind="first-block"), LARGE).compile


# Quantizations.


def test_a_step_with_int8_weights_takes_longer_than_in_bfloat16_and_the_plan_says_so() -> None:
    found = modes("h100")
    assert found["none+int8+tiling"].seconds.step > found["none+tiling"].seconds.step
    assert any(note.startswith("int8 stores weights only") for note in plan(REQUEST, LARGE, machine("h100")).notes)


@pytest.mark.parametrize(("gpu", "expected"), [("h100", True), ("4090", True), ("a100", False), ("mi300x", False)])
def test_dynamic_float8_without_compiling_is_warned_of_where_it_runs(gpu: str, expected: bool) -> None:
    notes = plan(REQUEST, LARGE, machine(gpu)).notes
    assert any(note.startswith("fp8-dynamic, which is not planned, needs compile: true") for note in notes) == expected
