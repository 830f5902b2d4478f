"""A component that left the device: its tensors are the ones that were in main memory before, unless they changed.

The device is ``meta``, from which nothing can be copied, or the CPU, where a copy has another address.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from hunyuan_local.config import load_profile
from hunyuan_local.pipeline.memory.host_copies import Visitor
from hunyuan_local.pipeline.memory.placement import Placement

META = torch.device("meta")


class Small(torch.nn.Module):
    """Parameters, two of them tied, a buffer, and a buffer that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
        self.two.weight = self.one.weight
        self.register_buffer("counted", torch.ones(3))
        self.register_buffer("table", torch.arange(5.0), persistent=False)
        self.requires_grad_(False)


def addresses(module: torch.nn.Module) -> dict[str, int]:
    named = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    return {name: tensor.data_ptr() for name, tensor in named}


class Elsewhere(Visitor):
    """A visitor whose device is another part of main memory: every move copies, as one to a GPU does."""

    def arrive(self, device: torch.device) -> None:
        module = self._module
        module.to = lambda *_: module._apply(torch.clone)
        super().arrive(device)
        del module.to


def test_nothing_is_copied_back() -> None:
    module = Small()
    before = addresses(module)
    visitor = Visitor(module)
    visitor.arrive(META)
    assert {tensor.device for tensor in module.state_dict().values()} == {META}
    visitor.leave()
    assert addresses(module) == before


def test_a_second_visit_copies_nothing_back_either() -> None:
    module = Small()
    before, visitor = addresses(module), Elsewhere(module)
    for _ in range(2):
        visitor.arrive(META)
        assert not set(addresses(module).values()) & set(before.values())
        visitor.leave()
    assert addresses(module) == before


def test_what_a_move_left_halfway_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Small()
    before, visitor = addresses(module), Visitor(module)

    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(module.two, "_apply", fail)
    with pytest.raises(torch.OutOfMemoryError):
        visitor.arrive(META)
    monkeypatch.undo()
    assert module.one.weight.device == META
    visitor.leave()
    assert addresses(module) == before


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("one.weight", lambda module: module.one.weight.add_(1)),
        ("one.weight", lambda module: setattr(module.one.weight, "data", torch.full((4, 4), 7.0))),
        ("one.bias", lambda module: setattr(module.one, "bias", torch.nn.Parameter(torch.full((4,), 7.0)))),
        ("counted", lambda module: module.counted.mul_(3)),
        ("counted", lambda module: setattr(module, "counted", torch.full((3,), 7.0))),
        ("added", lambda module: module.register_buffer("added", torch.full((3,), 7.0))),
        ("one.weight", lambda module: module.double()),
    ],
    ids=["in place", "data", "replaced", "buffer in place", "buffer replaced", "added", "dtype"],
)
def test_what_changed_on_the_device_is_kept(name: str, change: Callable[[Small], object]) -> None:
    module = Small()
    visitor = Elsewhere(module)
    visitor.arrive(META)
    change(module)
    expected = module.state_dict()[name].clone()
    visitor.leave()
    assert torch.equal(module.state_dict()[name], expected) and module.state_dict()[name].dtype == expected.dtype


def test_only_what_changed_is_another_tensor() -> None:
    module = Small()
    before, visitor = addresses(module), Elsewhere(module)
    visitor.arrive(META)
    module.one.bias.add_(1)
    visitor.leave()
    after = addresses(module)
    assert [name for name in before if after[name] != before[name]] == ["one.bias"]


def test_tied_weights_stay_tied() -> None:
    module = Small()
    visitor = Visitor(module)
    visitor.arrive(META)
    visitor.leave()
    assert module.one.weight is module.two.weight and module.one.weight.device.type == "cpu"


def test_weights_that_each_layer_casts_and_casts_back_are_held() -> None:
    module = Small()
    before, visitor = addresses(module), Elsewhere(module, recast=True)
    visitor.arrive(META)
    module.one.double().float()
    visitor.leave()
    assert addresses(module) == before


def test_weights_that_torchao_quantized_are_held(with_extras: None) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    module = torch.nn.Sequential(torch.nn.Linear(32, 32, bias=False)).requires_grad_(False)
    quantize_(module, Int8WeightOnlyConfig(set_inductor_config=False))
    before = [getattr(module[0].weight, name).data_ptr() for name in ("qdata", "scale")]
    expected, visitor = module(torch.ones(1, 32)), Visitor(module)
    for _ in range(2):
        visitor.arrive(META)
        assert module[0].weight.qdata.device == META
        visitor.leave()
    assert [getattr(module[0].weight, name).data_ptr() for name in ("qdata", "scale")] == before
    assert module[0].weight.device.type == "cpu" and torch.equal(module(torch.ones(1, 32)), expected)


def test_a_placement_points_at_the_same_weights_again() -> None:
    module = Small()
    before = addresses(module)
    placement = Placement(load_profile("gpu-24gb").model_copy(update={"offload": "model"}))
    placement._device = META
    placement.place("transformer", module)
    with placement.active("transformer"):
        assert module.one.weight.device == META
    assert addresses(module) == before
