"""Components kept, moved and streamed; what needs a GPU is tested up to the library's call."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hunyuan_local.config import (
    ComponentPlacement,
    GroupOffload,
    RuntimeProfile,
    cache_dir,
    load_model_config,
    load_profile,
)
from hunyuan_local.pipeline.loading.loader import load_model
from hunyuan_local.pipeline.memory import placement as placement_module
from hunyuan_local.pipeline.memory.placement import Placement

CPU = load_profile("cpu")
GPU = load_profile("gpu-80gb")
TINY = load_model_config("tiny")


class Moved(torch.nn.Module):
    """Records where it is moved."""

    def __init__(self, name: str, log: list[tuple[str, str]]):
        super().__init__()
        self.name, self.log = name, log

    def to(self, device: object) -> Moved:
        self.log.append((self.name, str(device)))
        return self


def profile(base: RuntimeProfile = GPU, **changes: object) -> RuntimeProfile:
    return base.model_copy(update=changes)


@pytest.mark.parametrize(
    ("offload", "places"),
    [
        ("none", ("device", "device", "visit", "visit")),
        ("model", ("visit", "visit", "visit", "visit")),
        ("group", ("group", "visit", "group", "visit")),
        ("sequential", ("sequential", "sequential", "sequential", "sequential")),
    ],
)
def test_offload_says_where_each_component_is(offload: str, places: tuple[str, ...]) -> None:
    components = ("transformer", "vae", "text_encoder", "text_encoder_2")
    assert tuple(map(profile(offload=offload).residence, components)) == places


def test_a_component_may_have_a_place_of_its_own() -> None:
    own = profile(offload="none", placement=ComponentPlacement(text_encoder="cpu", vae="visit"))
    assert (own.residence("text_encoder"), own.residence("vae"), own.residence("transformer")) == (
        "cpu",
        "visit",
        "device",
    )


def test_a_component_on_the_cpu_computes_there() -> None:
    own = Placement(profile(placement=ComponentPlacement(text_encoder="cpu")))
    assert (own.device_of("text_encoder").type, own.device_of("transformer").type) == ("cpu", "cuda")


@pytest.mark.parametrize(
    ("offload", "quantization", "device"),
    [
        ("none", None, "cuda"),
        ("none", "int8", "cuda"),
        ("none", "fp8", "cpu"),  # cast after reading: in full precision it may not fit on the device
        ("model", None, "cpu"),
        ("model", "nf4", "cuda"),  # bitsandbytes quantizes on the GPU
        ("group", None, "cpu"),
    ],
)
def test_weights_are_read_straight_to_where_they_are_wanted(
    offload: str, quantization: str | None, device: str
) -> None:
    own = Placement(profile(offload=offload, quantization=quantization))
    assert own.loading_device("transformer").type == device


def test_visitors_come_one_at_a_time_and_leave() -> None:
    log: list[tuple[str, str]] = []
    own = Placement(profile(offload="model"))
    for name in ("transformer", "vae"):
        own.place(name, Moved(name, log))
    log.clear()
    with own.active("transformer"):
        assert log == [("transformer", "cuda")]
        log.clear()
    assert log == [("transformer", "cpu")]


@pytest.fixture
def guests() -> tuple[Placement, list[tuple[str, str]]]:
    """A used transformer that must stay on the device, with other components; records the moves from then on."""
    log: list[tuple[str, str]] = []
    own = Placement(profile(offload="model"))
    for name in ("transformer", "vae", "text_encoder"):
        own.place(name, Moved(name, log))
    own.let_stay("transformer")
    with own.active("transformer"):
        log.clear()
    return own, log


def test_a_visitor_that_was_asked_to_stay_is_not_moved_between_videos(guests: tuple) -> None:
    own, log = guests
    for component in ("vae", "transformer", "vae"):
        with own.active(component):
            pass
    assert log == [("vae", "cuda"), ("vae", "cpu")] * 2


def test_a_transformer_that_stays_leaves_for_the_text_encoder(guests: tuple) -> None:
    own, log = guests
    with own.active("text_encoder"):
        assert log == [("transformer", "cpu"), ("text_encoder", "cuda")]


def test_a_visitor_that_stays_can_be_dismissed(guests: tuple) -> None:
    own, log = guests
    assert own.has_evictable
    own.evict()
    assert log == [("transformer", "cpu")] and not own.has_evictable


def test_a_visitor_leaves_when_it_runs_out_of_memory() -> None:
    log: list[tuple[str, str]] = []
    own = Placement(profile(offload="model"))
    own.place("transformer", Moved("transformer", log))
    with pytest.raises(torch.OutOfMemoryError), own.active("transformer"):
        raise torch.OutOfMemoryError("CUDA out of memory")
    assert log[-1] == ("transformer", "cpu")


def test_residents_stay_when_another_component_is_active() -> None:
    log: list[tuple[str, str]] = []
    own = Placement(profile(offload="none"))
    own.place("transformer", Moved("transformer", log))
    with own.active("vae"):
        pass
    assert log == [("transformer", "cuda")]


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The arguments that the library receives when a component is streamed."""
    found: dict[str, object] = {}
    monkeypatch.setattr(placement_module, "apply_group_offloading", lambda module, **options: found.update(options))
    return found


@pytest.mark.parametrize(
    ("group", "options"),
    [
        (
            {},
            {"use_stream": True, "record_stream": True, "low_cpu_mem_usage": False, "offload_type": "block_level"},
        ),
        ({"pinned": False}, {"use_stream": True, "low_cpu_mem_usage": True}),
        ({"stream": False}, {"use_stream": False, "record_stream": False, "low_cpu_mem_usage": False}),
        ({"level": "leaf"}, {"offload_type": "leaf_level", "num_blocks_per_group": None}),
    ],
)
def test_a_gpu_streams_as_the_profile_says(
    streamed: dict[str, object], group: dict[str, object], options: dict[str, object]
) -> None:
    Placement(profile(offload="group", group=GroupOffload(**group))).place("text_encoder", torch.nn.Linear(2, 2))
    assert {key: streamed[key] for key in options} == options
    assert str(streamed["onload_device"]) == "cuda"


def test_each_component_streams_from_a_folder_of_its_own(streamed: dict[str, object]) -> None:
    own = Placement(profile(offload="group", group=GroupOffload(to_disk=True)))
    own.place("text_encoder", torch.nn.Linear(2, 2))
    first = Path(streamed["offload_to_disk_path"])
    own.place("transformer", torch.nn.Linear(2, 2))
    second = Path(streamed["offload_to_disk_path"])
    assert first != second and first.is_dir() and second.is_dir()
    own.close()
    assert not first.exists() and not second.exists()


def test_weights_on_disk_are_deleted_with_the_model(loads_model: None) -> None:
    model = load_model(TINY, profile(CPU, offload="group", group=GroupOffload(to_disk=True)))
    assert list((cache_dir() / "offload").glob("own-transformer-*/*.safetensors"))
    model.placement.close()
    assert not list((cache_dir() / "offload").glob("own-transformer-*"))


def test_what_bitsandbytes_holds_in_4_bits_is_streamed_from_where_it_was_loaded(streamed: dict[str, object]) -> None:
    log: list[tuple[str, str]] = []
    module = Moved("transformer", log)
    module.is_loaded_in_4bit = True
    Placement(profile(offload="group", quantization="nf4")).place("transformer", module)
    assert log == [] and streamed["offload_type"] == "block_level"
