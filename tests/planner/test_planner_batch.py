"""Many videos on several GPUs: replicas or context parallelism, and the two ways on one GPU."""

from __future__ import annotations

import json

import pytest

from hunyuan_local.config import load_model_config
from hunyuan_local.config.profiles import RuntimeProfile
from hunyuan_local.errors import ConfigError, GpuMemoryError
from hunyuan_local.planner import BatchOption, BatchPlan, Machine, Mode, find_gpu, makespan, plan_batch, seconds_of
from hunyuan_local.planner.modes import DTYPES
from hunyuan_local.schema import GenerationRequest

LARGE, TINY = load_model_config("hunyuan-video"), load_model_config("tiny")
REQUEST = GenerationRequest(prompt="any", width=1280, height=720, num_frames=129, num_inference_steps=50)
GIB = 2**30
CPU = Machine(None, 4 * GIB)


def planned(num_gpus: int | None, videos: int, gpu: str = "h100", host: int | None = None) -> BatchPlan:
    spec = find_gpu(gpu)
    machine = Machine(spec.memory_bytes, None if host is None else host * GIB, spec)
    return plan_batch(REQUEST, LARGE, machine, num_gpus, videos)


def option(found: BatchPlan, strategy: str, mode: str = "none+tiling") -> BatchOption:
    return next(item for item in found.of(strategy) if item.plan.name == mode)


@pytest.mark.parametrize(("videos", "rounds"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_replicas_make_their_videos_in_rounds(videos: int, rounds: int) -> None:
    found = option(planned(4, videos), "replicas")
    assert found.seconds.videos == pytest.approx(rounds * found.seconds.each)


def test_replicas_without_a_video_stay_idle_and_take_no_memory() -> None:
    few, one = option(planned(4, 2), "replicas"), option(planned(None, 1), "staged")
    assert (few.cards, few.host_bytes) == (2, 2 * one.host_bytes)


def test_a_single_video_is_made_by_all_cards() -> None:
    assert planned(8, 1).choice.strategy == "context-parallel"


def test_as_many_videos_as_cards_are_made_by_replicas() -> None:
    assert planned(8, 24).choice.strategy == "replicas"


def test_videos_that_do_not_go_round_are_made_by_all_cards() -> None:
    assert planned(4, 5).choice.strategy == "context-parallel"


def test_context_parallel_shortens_the_wait_for_the_first_video() -> None:
    found = planned(8, 8)
    assert option(found, "context-parallel").seconds.first < 0.4 * option(found, "replicas").seconds.first


def test_replicas_do_not_shorten_the_wait_for_the_first_video() -> None:
    alone = option(planned(None, 1), "staged")
    assert option(planned(8, 8), "replicas").seconds.first == pytest.approx(alone.seconds.first)


def test_the_cards_share_the_decoding_by_temporal_tiles() -> None:
    request = GenerationRequest(prompt="any", num_frames=129)  # 33 latents: 11 tiles
    machine, mode = Machine(80 * GIB, None, find_gpu("h100")), Mode("none", None, True)
    one, four = (seconds_of(request, LARGE, machine, mode, cards).decode for cards in (1, 4))
    assert four / one == pytest.approx(3 / 11)


def test_context_parallel_saves_activations_and_no_weights() -> None:
    found = planned(4, 4)
    one, four = (option(found, name).plan.peaks for name in ("replicas", "context-parallel"))
    assert four["load"] == one["load"]
    assert four["denoise"].gpu_bytes < one["denoise"].gpu_bytes - GIB


def test_a_video_that_one_card_cannot_hold_fits_on_four() -> None:
    found = plan_batch(REQUEST, LARGE, Machine(5 * GIB, None), 4, 3)
    assert (found.best("replicas"), found.choice.strategy) == (None, "context-parallel")


def test_without_nvlink_the_cards_gain_less_from_sharing() -> None:
    gains = []
    for gpu in ("h100", "h100-pcie"):
        found = planned(8, 8, gpu=gpu)
        gains.append(option(found, "replicas").seconds.each / option(found, "context-parallel").seconds.each)
    assert gains[0] > 1.2 * gains[1]


def test_cards_that_cannot_share_the_heads_have_that_reason_and_no_time() -> None:
    found = option(planned(7, 1), "context-parallel")
    assert found.seconds is None and "7 cards cannot split 24 attention heads" in found.reason


def test_each_card_has_a_process_of_its_own_in_main_memory() -> None:
    assert option(planned(4, 4, gpu="l40s", host=48), "replicas").reason == (
        "4 processes need 65.2 GiB of host memory; the machine has 48.0 GiB"
    )


def test_where_main_memory_holds_fewer_processes_that_number_is_named() -> None:
    with pytest.raises(GpuMemoryError, match=r"use fewer cards \(--num-gpus 2\)"):
        planned(8, 8, gpu="4090", host=40).require_choice()


def test_nothing_fitting_on_one_card_is_refused_as_for_one_video() -> None:
    with pytest.raises(GpuMemoryError, match="what would fit"):
        plan_batch(REQUEST, LARGE, Machine(4 * GIB, None), None, 4).require_choice()


def test_staged_prompts_let_the_text_encoders_come_once() -> None:
    found = planned(1, 10, gpu="l40s")  # on an H100 they stay on the GPU
    visit = option(found, "staged").plan.seconds.visit
    saved = option(found, "one-at-a-time").seconds.total - option(found, "staged").seconds.total
    assert visit > 1 and saved == pytest.approx(9 * visit)


def test_the_first_video_comes_earlier_one_at_a_time() -> None:
    found = planned(1, 1000)
    assert option(found, "one-at-a-time").seconds.first < option(found, "staged").seconds.first


def test_one_video_takes_the_same_either_way() -> None:
    found = planned(1, 1)
    assert option(found, "one-at-a-time").seconds.total == option(found, "staged").seconds.total


def test_streamed_weights_are_page_locked_while_loading() -> None:
    found = planned(1, 1)
    assert option(found, "staged", "group+tiling").seconds.load > option(found, "staged").seconds.load + 20


def test_batches_are_planned_for_a_cpu_too() -> None:
    found = plan_batch(GenerationRequest(prompt="any"), TINY, CPU, None, 5)
    assert found.require_choice().seconds.videos == pytest.approx(5 * found.choice.seconds.each)


def test_several_gpus_of_a_cpu_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"num_gpus=2: this plan is for a CPU"):
        plan_batch(GenerationRequest(prompt="any"), TINY, CPU, 2, 5)


@pytest.mark.parametrize(("num_gpus", "videos"), [(0, 1), (-1, 1), (65, 1), (1, 0), (1, -5), (1, 10**6 + 1)])
def test_numbers_out_of_range_are_refused_by_name(num_gpus: int, videos: int) -> None:
    wrong = f"videos={videos}" if num_gpus == 1 else f"num_gpus={num_gpus}"
    with pytest.raises(ConfigError, match=f"{wrong}: must be from 1 to"):
        planned(num_gpus, videos)


def test_the_largest_numbers_are_taken() -> None:
    assert option(planned(64, 10**6), "replicas").rounds == 15_625


def test_what_the_times_rest_on_is_reported() -> None:
    text = " ".join(planned(4, 2).assumptions)
    assert all(part in text for part in ("2 GB/s from disk", "450 GB/s", "idle cards: 2 of 4", "decodes some tiles"))


def test_json_has_every_option_and_the_choice() -> None:
    document = json.loads(json.dumps(planned(4, 5).to_json(), allow_nan=False))
    assert len(document["options"]) == 2 * 32
    assert document["choice"] == {"strategy": "context-parallel", "mode": "none+tiling"}


def test_a_request_in_a_profile_takes_as_long_as_in_its_mode() -> None:
    machine = Machine(find_gpu("h100").memory_bytes, None, find_gpu("h100"))
    profile = RuntimeProfile(name="own", device="cuda", dtypes=DTYPES["cuda"], offload="group", vae_tiling=True)
    expected = seconds_of(REQUEST, LARGE, machine, Mode("group"))
    assert seconds_of(REQUEST, LARGE, machine, profile) == expected


def test_a_profile_of_the_cpu_does_not_look_at_the_gpu() -> None:
    machine = Machine(find_gpu("h100").memory_bytes, None, find_gpu("h100"))
    profile = RuntimeProfile(name="own", device="cpu", dtypes=DTYPES["cpu"])
    request = GenerationRequest(prompt="any")
    expected = seconds_of(request, TINY, CPU, Mode(vae_tiling=False))
    assert seconds_of(request, TINY, machine, profile) == expected


def test_a_mode_that_the_machine_cannot_run_has_no_seconds() -> None:
    with pytest.raises(ConfigError, match="offload needs a CUDA device"):
        seconds_of(GenerationRequest(prompt="any"), TINY, CPU, Mode("group"))


@pytest.mark.parametrize(
    ("seconds", "replicas", "expected"),
    [([3, 1, 1, 1], 2, 3), ([1, 1, 3], 2, 4), ([2, 2, 2], 1, 6), ([5], 8, 5), ([], 2, 0)],
)
def test_each_video_is_taken_by_the_first_replica_that_is_free(
    seconds: list[float], replicas: int, expected: float
) -> None:
    assert makespan(seconds, replicas) == expected


def test_no_replica_makes_nothing() -> None:
    with pytest.raises(ConfigError, match="replicas=0"):
        makespan([1.0], 0)
