"""The planner's lists of layers compared with the libraries' real classes."""

from __future__ import annotations

import pytest
from live_tensors import LARGE, component, tiny_config

from hunyuan_local.config import load_model_config
from hunyuan_local.pipeline.loading.lora_loader import weighted_modules
from hunyuan_local.planner.checkpoint import COMPONENTS, read_architecture, read_transformer
from hunyuan_local.planner.trace import Trace


def parameters_by_module(model: object) -> dict[str, int]:
    found = {}
    for name, module in model.named_modules():
        own = [p.numel() for p in module._parameters.values() if p is not None]
        if own:
            found[name] = sum(own)
    return found


@pytest.mark.parametrize("name", COMPONENTS)
@pytest.mark.parametrize("model", ["hunyuan-video", "tiny"])
def test_every_layer_is_that_of_the_real_class(model: str, name: str) -> None:
    config = tiny_config(name) if model == "tiny" else LARGE[name]
    layers = getattr(read_architecture(load_model_config(model)), name).layers()
    assert {layer.name: layer.parameters for layer in layers} == parameters_by_module(component(name, config))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("transformer", 12_821_012_544),
        ("vae", 246_478_803),
        ("text_encoder", 7_505_186_816),
        ("text_encoder_2", 123_060_480),
    ],
)
def test_the_parameters_of_the_13_b_model(name: str, parameters: int) -> None:
    assert getattr(read_architecture(load_model_config("hunyuan-video")), name).parameters == parameters


def test_linear_layers_know_their_rows() -> None:
    transformer = read_architecture(load_model_config("tiny")).transformer
    real = dict(component("transformer", tiny_config("transformer")).named_modules())
    linear = [layer for layer in transformer.layers() if layer.kind == "linear"]
    assert {layer.name: layer.out for layer in linear} == {x.name: real[x.name].out_features for x in linear}


@pytest.mark.parametrize("model", ["hunyuan-video", "tiny"])
def test_the_shapes_of_the_transformer_are_those_of_the_real_class(model: str) -> None:
    real = component("transformer", tiny_config("transformer") if model == "tiny" else LARGE["transformer"])
    assert read_transformer(load_model_config(model)).shapes() == {
        name: (tuple(module.weight.shape), getattr(module, "bias", None) is not None)
        for name, module in weighted_modules(real).items()
    }


@pytest.mark.parametrize("times", [0, 1, 2, 7])
def test_equal_steps_cost_what_they_cost_one_by_one(times: int) -> None:
    def step(trace: Trace) -> None:
        trace.make("x", 100)
        trace.make("y", 50)
        trace.matmul(2, 3, 4)
        trace.copy(7)
        trace.drop("y")

    one_by_one, counted = Trace(), Trace()
    for _ in range(times):
        step(one_by_one)
    counted.repeat(times, lambda: step(counted))
    assert counted.cost() == one_by_one.cost()
