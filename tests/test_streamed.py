"""Group offload: what stays on the device, what leaves it, and how far the CPU may run ahead.

diffusers' own hooks run from main memory to main memory, where a transfer is a copy to another address. Its stream
needs a GPU; its prefetching is set up here as ``LazyPrefetchGroupOffloadingHook`` does it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel
from diffusers.hooks import FirstBlockCacheConfig, apply_first_block_cache
from diffusers.hooks.group_offloading import ModuleGroup

from hunyuan_local.config import GroupOffload, RuntimeProfile, load_profile
from hunyuan_local.pipeline.diffusers_private import groups_of
from hunyuan_local.pipeline.memory.placement import Placement
from hunyuan_local.pipeline.memory.streamed import StreamedComponent

CPU = torch.device("cpu")


def toy() -> HunyuanVideoTransformer3DModel:
    torch.manual_seed(0)
    return (
        HunyuanVideoTransformer3DModel(
            num_attention_heads=1, attention_head_dim=8, num_layers=2, num_single_layers=3, num_refiner_layers=1,
            text_embed_dim=8, pooled_projection_dim=4, rope_axes_dim=(2, 2, 4),
        )
        .eval()
        .requires_grad_(False)
    )  # fmt: skip


@torch.no_grad()
def step(transformer: HunyuanVideoTransformer3DModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    with transformer.cache_context("cond"):
        return transformer(
            hidden_states=torch.randn(1, 16, 1, 2, 2, generator=generator),
            timestep=torch.full((1,), 500.0),
            encoder_hidden_states=torch.randn(1, 4, 8, generator=generator),
            encoder_attention_mask=torch.ones(1, 4),
            pooled_projections=torch.randn(1, 4, generator=generator),
            guidance=torch.full((1,), 6000.0),
            return_dict=False,
        )[0]


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Each transfer of a group: its direction and the group's first module; a transfer to the device copies."""
    log: list[tuple[str, str]] = []
    onload, offload = ModuleGroup._onload_from_memory, ModuleGroup._offload_to_memory

    def see(move, direction):
        def moved(group: ModuleGroup) -> None:
            log.append((direction, type(group.modules[0]).__name__))
            move(group)

        return moved

    monkeypatch.setattr(ModuleGroup, "_onload_from_memory", see(onload, "on"))
    monkeypatch.setattr(ModuleGroup, "_offload_to_memory", see(offload, "off"))
    monkeypatch.setattr(
        ModuleGroup,
        "_transfer_tensor_to_device",
        lambda group, tensor, source, stream: setattr(tensor, "data", source.clone()),
    )
    return log


@pytest.fixture
def transformer() -> HunyuanVideoTransformer3DModel:
    module = toy()
    module.enable_group_offload(CPU, CPU, offload_type="block_level", num_blocks_per_group=1)
    return module


def prefetch(module: torch.nn.Module) -> None:
    """Let each group fetch the next one, as diffusers does with a stream after the first forward pass."""
    blocks = [*module.transformer_blocks, *module.single_transformer_blocks]
    hooks = [part._diffusers_hook.get_hook("group_offloading") for part in (module, *blocks)]
    for hook, after in itertools.pairwise(hooks):
        hook.next_group, after.group.onload_self = after.group, False


def on_device(moves: list[tuple[str, str]]) -> int:
    """Number of groups that arrived and have not left."""
    return sum(1 if direction == "on" else -1 for direction, _ in moves)


def test_what_is_outside_the_blocks_is_moved_once_for_all_steps(transformer, moves) -> None:
    component = StreamedComponent(transformer)
    component.arrive(CPU)
    for _ in range(3):
        step(transformer)
    assert [name for direction, name in moves if direction == "on"].count("HunyuanVideoPatchEmbed") == 1
    assert moves.count(("off", "HunyuanVideoPatchEmbed")) == 0


def test_the_steps_are_those_of_a_whole_transformer(transformer, moves) -> None:
    component = StreamedComponent(transformer)
    component.arrive(CPU)
    assert torch.equal(step(transformer), step(toy()))
    component.leave()


def test_what_is_outside_the_blocks_leaves_without_a_copy(transformer, moves) -> None:
    component = StreamedComponent(transformer)
    before = [tensor.data_ptr() for tensor in transformer.x_embedder.parameters()]
    component.arrive(CPU)
    assert [tensor.data_ptr() for tensor in transformer.x_embedder.parameters()] != before
    step(transformer)
    component.leave()
    assert [tensor.data_ptr() for tensor in transformer.x_embedder.parameters()] == before


def test_outside_its_stage_diffusers_moves_everything(transformer, moves) -> None:
    StreamedComponent(transformer)
    step(transformer)
    assert moves.count(("on", "HunyuanVideoPatchEmbed")) == moves.count(("off", "HunyuanVideoPatchEmbed")) == 1


def test_a_failed_arrival_leaves_everything_as_it_was(transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    component = StreamedComponent(transformer)
    before = [tensor.data_ptr() for tensor in transformer.parameters()]
    transfers = iter(range(3))

    def transfer(group: ModuleGroup, tensor: torch.Tensor, source: torch.Tensor, stream: object) -> None:
        if next(transfers, None) is None:
            raise torch.OutOfMemoryError("CUDA out of memory")
        tensor.data = source.clone()

    monkeypatch.setattr(ModuleGroup, "_transfer_tensor_to_device", transfer)
    with pytest.raises(torch.OutOfMemoryError):
        component.arrive(CPU)
    assert [tensor.data_ptr() for tensor in transformer.parameters()] == before


@pytest.mark.parametrize("skipped_from", [0, 1], ids=["all blocks", "all but the first"])
def test_a_prefetched_block_that_does_not_run_leaves(transformer, moves, skipped_from: int) -> None:
    component = StreamedComponent(transformer)
    component.arrive(CPU)
    prefetch(transformer)
    for block in (*transformer.transformer_blocks, *transformer.single_transformer_blocks)[skipped_from:]:
        block.forward = lambda hidden, text, *_, **__: (hidden, text)
    moves.clear()
    step(transformer)
    assert len([1 for direction, _ in moves if direction == "on"]) == 1 + skipped_from
    assert on_device(moves) == 0


def test_a_first_block_cache_leaves_no_block_on_the_device(transformer, moves) -> None:
    component = StreamedComponent(transformer)
    component.arrive(CPU)
    prefetch(transformer)
    apply_first_block_cache(transformer, FirstBlockCacheConfig(threshold=0.9))
    step(transformer)
    moves.clear()
    step(transformer)  # skipped after the first block
    assert moves.count(("on", "HunyuanVideoSingleTransformerBlock")) == 0 and on_device(moves) == 0


def test_a_block_that_fails_leaves_nothing_on_the_device(transformer, moves) -> None:
    component = StreamedComponent(transformer)
    component.arrive(CPU)
    prefetch(transformer)
    moves.clear()
    transformer.transformer_blocks[1].attn.forward = lambda *_, **__: 1 / 0
    with pytest.raises(ZeroDivisionError):
        step(transformer)
    assert on_device(moves) == 0


class Event:
    """An event of a device; writes down when the CPU waits for it."""

    log: list[str]

    def record(self) -> None:
        self.number = sum(line.startswith("end") for line in self.log)
        self.log.append(f"end {self.number}")

    def synchronize(self) -> None:
        self.log.append(f"wait {self.number}")


@pytest.fixture
def timeline(transformer, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Requests for blocks, ends of blocks and waits for an end, in one pass with prefetching."""
    monkeypatch.setattr(Event, "log", [], raising=False)
    onload = ModuleGroup._onload_from_memory
    component = StreamedComponent(transformer, Event)
    component.arrive(CPU)
    prefetch(transformer)

    def see(group: ModuleGroup) -> None:
        Event.log.append("request")
        onload(group)

    monkeypatch.setattr(ModuleGroup, "_onload_from_memory", see)
    step(transformer)
    return Event.log


def test_weights_of_at_most_three_blocks_are_on_the_device(timeline: list[str]) -> None:
    present = most = 0
    for line in timeline:
        present += {"request": 1, "wait": -1}.get(line.split()[0], 0)
        most = max(most, present)
    assert most == 3


def test_the_cpu_does_not_wait_for_the_block_that_it_started_last(timeline: list[str]) -> None:
    ended = -1
    for line in timeline:
        if line.startswith("end"):
            ended = int(line.split()[1])
        elif line.startswith("wait"):
            assert int(line.split()[1]) < ended


def group_profile(**changes: object) -> RuntimeProfile:
    return load_profile("gpu-24gb").model_copy(update={"offload": "group", "group": GroupOffload(**changes)})


def test_a_placement_keeps_what_is_outside_the_blocks_during_its_stage(moves) -> None:
    module = toy()
    placement = Placement(group_profile(stream=False))
    placement._device = CPU
    placement.place("transformer", module)
    moves.clear()
    with placement.active("transformer"):
        step(module), step(module)
    assert moves.count(("on", "HunyuanVideoPatchEmbed")) == 1


def test_a_streamed_component_does_not_stay_for_the_next_video() -> None:
    placement = Placement(group_profile(stream=False))
    placement._device = CPU
    placement.place("transformer", toy())
    placement.let_stay("transformer")
    with placement.active("transformer"):
        pass
    assert not placement.has_evictable


def test_the_first_group_is_what_is_outside_the_blocks(transformer) -> None:
    rest, blocks = groups_of(transformer)
    assert {type(part).__name__ for part in rest.modules} >= {"HunyuanVideoPatchEmbed", "HunyuanVideoTokenRefiner"}
    assert [type(group.modules[0]).__name__ for group in blocks] == (
        2 * ["HunyuanVideoTransformerBlock"] + 3 * ["HunyuanVideoSingleTransformerBlock"]
    )
