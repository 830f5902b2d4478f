"""The quantized transformer: near full precision, movable like any other, and refused where it cannot run."""

from __future__ import annotations

import copy
import functools
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import accelerate
import numpy as np
import pytest
import torch
from diffusers import HunyuanVideoPipeline, HunyuanVideoTransformer3DModel
from diffusers.quantizers.bitsandbytes.utils import replace_with_bnb_linear
from safetensors.torch import load_file, save_file

from hunyuan_local.config import load_model_config, load_profile
from hunyuan_local.config.quantization import NEEDS, warning
from hunyuan_local.errors import ConfigError, ModelLoadError
from hunyuan_local.pipeline.attention.mask_free import drop_padding
from hunyuan_local.pipeline.attention.rotary import keep_rotary_tables
from hunyuan_local.pipeline.loading import loader
from hunyuan_local.pipeline.loading.quantization import (
    cast_storage,
    finish_quantization,
    require,
    transformer_config,
)
from hunyuan_local.pipeline.text.tokenizers import load_clip_tokenizer, load_llama_tokenizer
from hunyuan_local.planner.checkpoint import read_architecture
from hunyuan_local.planner.quantization import METHODS
from hunyuan_local.planner.weights import store

TINY = load_model_config("tiny")
FOLDER = Path(TINY.source)
CPU = torch.device("cpu")
# Least PSNR in dB of the frames after 8 steps, against full precision. Measured: 39.2, 48.9, 65.0 and 61.7.
ON_A_CPU = {"fp8": 33, "fp8-weights": 38, "int8": 48, "int8-dynamic": 46}
ON_CUDA = ("fp8-dynamic", "nf4", "llm-int8")
TORCHAO_ON_A_CPU = ("fp8-weights", "int8", "int8-dynamic")
on_a_cpu = pytest.mark.parametrize("method", ON_A_CPU)
loads_model = pytest.mark.usefixtures("loads_model")


class Maker:
    """Generates one short video with any transformer; the prompt is encoded once."""

    def __init__(self) -> None:
        self._pipe = HunyuanVideoPipeline.from_pretrained(
            FOLDER,
            tokenizer=load_llama_tokenizer(FOLDER / "tokenizer", TINY.prompt_template),
            tokenizer_2=load_clip_tokenizer(FOLDER / "tokenizer_2"),
            dtype=torch.float32,
        )
        self._pipe.set_progress_bar_config(disable=True)
        template = TINY.prompt_template.model_dump()
        prompt = "a red circle moving right on a black background"
        names = ("prompt_embeds", "pooled_prompt_embeds", "prompt_attention_mask")
        self._prompt = dict(zip(names, self._pipe.encode_prompt(prompt, prompt_template=template), strict=True))
        self.full = self._pipe.transformer.eval().requires_grad_(False)
        self.full_frames = self.frames(self.full)
        self.prediction = functools.cache(lambda method: self.predict(looked_at(method)))

    def frames(self, transformer: HunyuanVideoTransformer3DModel) -> np.ndarray:
        """Five frames after 8 steps, in 0..1."""
        self._pipe.transformer = transformer
        self._pipe.scheduler.set_shift(TINY.defaults.flow_shift)
        video = self._pipe(
            **self._prompt, width=144, height=80, num_frames=5, num_inference_steps=8,
            sigmas=np.linspace(1.0, 0.0, 9)[:-1], generator=torch.Generator().manual_seed(7), output_type="np",
        )  # fmt: skip
        return video.frames[0]

    @torch.no_grad()
    def predict(self, transformer: HunyuanVideoTransformer3DModel) -> torch.Tensor:
        """One forward pass on fixed noise."""
        noise = torch.randn(1, 16, 2, 10, 18, generator=torch.Generator().manual_seed(7))
        return transformer(
            hidden_states=noise, timestep=torch.tensor([700.0]), guidance=torch.tensor([6000.0]), return_dict=False,
            encoder_hidden_states=self._prompt["prompt_embeds"],
            encoder_attention_mask=self._prompt["prompt_attention_mask"],
            pooled_projections=self._prompt["pooled_prompt_embeds"],
        )[0]  # fmt: skip


@pytest.fixture(scope="module")
def maker(loads_model: None) -> Maker:
    return Maker()


def loaded(method: str | None, dtype: torch.dtype = torch.float32) -> HunyuanVideoTransformer3DModel:
    """The transformer as the loader makes it."""
    model = HunyuanVideoTransformer3DModel.from_pretrained(
        FOLDER / "transformer",
        dtype=dtype,
        device_map={"": CPU},
        quantization_config=transformer_config(method, dtype),
    )
    finish_quantization(model, method, dtype)
    cast_storage(model, method, dtype)
    return model.eval().requires_grad_(False)


@functools.cache
def looked_at(method: str | None, dtype: torch.dtype = torch.float32) -> HunyuanVideoTransformer3DModel:
    """One transformer for all tests that do not change it."""
    return loaded(method, dtype)


def with_bitsandbytes(
    method: str, folder: Path = FOLDER / "transformer", dtype: torch.dtype = torch.float32
) -> HunyuanVideoTransformer3DModel:
    """The transformer with bitsandbytes layers, which run on a CPU; only their loader in diffusers does not."""
    import bitsandbytes

    full = HunyuanVideoTransformer3DModel.from_pretrained(folder, dtype=dtype)
    config = transformer_config(method, dtype)
    model = replace_with_bnb_linear(copy.deepcopy(full), config.llm_int8_skip_modules, quantization_config=config)
    for name, layer in model.named_modules():
        if isinstance(layer, bitsandbytes.nn.Linear4bit | bitsandbytes.nn.Linear8bitLt):
            weight, bias = full.get_submodule(name).weight.data, full.get_submodule(name).bias.data
            layer.weight = type(layer.weight)(weight, requires_grad=False, **layer.weight.__dict__).to("cpu")
            layer.bias = torch.nn.Parameter(bias.clone(), requires_grad=False)
    return model.eval()


def stored_bytes(tensor: torch.Tensor) -> int:
    """Bytes of a tensor, including the inner tensors of torchao and the scales of bitsandbytes."""
    if hasattr(tensor, "__tensor_flatten__") and type(tensor) is not torch.nn.Parameter:
        return sum(stored_bytes(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    scales = [getattr(tensor, "SCB", None)]
    if state := getattr(tensor, "quant_state", None):
        scales += [state.absmax, state.code]
    return tensor.nbytes + sum(x.nbytes for x in scales if x is not None)


def psnr(found: np.ndarray, expected: np.ndarray) -> float:
    return -10 * math.log10(np.mean((found.astype(float) - expected.astype(float)) ** 2))


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


# --- What runs on a CPU ---


@pytest.mark.parametrize(("method", "least"), ON_A_CPU.items())
def test_frames_are_near_those_of_full_precision(maker: Maker, method: str, least: float) -> None:
    assert least < psnr(maker.frames(loaded(method)), maker.full_frames) < 100


# Measured: 0.113 and 0.015.
@pytest.mark.parametrize(("method", "most"), [("nf4", 0.2), ("llm-int8", 0.03)])
def test_a_forward_pass_of_bitsandbytes_is_near_full_precision(maker: Maker, method: str, most: float) -> None:
    model = with_bitsandbytes(method)
    finish_quantization(model, method, torch.float32)
    assert 0 < relative_error(maker.predict(model), maker.predict(maker.full)) < most


@on_a_cpu
@loads_model
def test_full_precision_is_kept_by_what_is_sensitive(method: str) -> None:
    model = looked_at(method)
    kept = (model.x_embedder.proj, model.context_embedder.proj_in, model.norm_out.linear, model.proj_out)
    assert {(type(layer.weight), layer.weight.dtype) for layer in kept} == {(torch.nn.Parameter, torch.float32)}


@loads_model
def test_the_modulation_of_the_blocks_is_quantised() -> None:
    modulation = looked_at("int8").transformer_blocks[0].norm1.linear
    assert type(modulation.weight) is not torch.nn.Parameter


@loads_model
def test_products_of_two_int8_factors_are_for_layers_of_many_rows() -> None:
    block = looked_at("int8-dynamic").transformer_blocks[0]
    few_rows = (block.norm1.linear, block.attn.add_q_proj, block.attn.to_add_out, block.ff_context.net[2])
    assert {type(layer.weight) for layer in few_rows} == {torch.nn.Parameter}


@loads_model
def test_no_setting_of_the_compiler_is_changed() -> None:
    import torch._inductor.config as inductor

    before = inductor.coordinate_descent_tuning
    loaded("int8")
    assert inductor.coordinate_descent_tuning == before


# --- Bytes ---


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", [*ON_A_CPU, "nf4", "llm-int8"])
@loads_model
def test_it_takes_the_bytes_that_are_planned(method: str, dtype: str) -> None:
    precision = getattr(torch, dtype)
    if method in ON_A_CPU:
        model = looked_at(method, precision)
    else:
        model = with_bitsandbytes(method, dtype=precision)
        finish_quantization(model, method, precision)
    architecture = read_architecture(TINY).transformer
    assert store(architecture, dtype, METHODS[method]).total == sum(map(stored_bytes, model.parameters()))


# --- Moved, streamed, hooked ---


def mask_free(model: HunyuanVideoTransformer3DModel) -> None:
    drop_padding(model, "native")
    keep_rotary_tables(model)


def group(level: str) -> Callable[[HunyuanVideoTransformer3DModel], None]:
    blocks = 1 if level == "block_level" else None
    return lambda model: model.enable_group_offload(CPU, CPU, offload_type=level, num_blocks_per_group=blocks)


def sequential(model: HunyuanVideoTransformer3DModel) -> None:
    accelerate.cpu_offload(model, CPU)


PLACES = {
    "copied": lambda model: model._apply(torch.clone),  # as a move to another device does
    "group-block": group("block_level"),
    "group-leaf": group("leaf_level"),
    "sequential": sequential,
}


# If activations are rounded to int8 too, the last bits decide the direction.
MASK_FREE = {"fp8": 1e-5, "fp8-weights": 1e-5, "int8": 1e-5, "int8-dynamic": 0.05}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@on_a_cpu
def test_numbers_depend_neither_on_where_the_weights_are_nor_on_the_mask(
    maker: Maker, method: str, place: Callable
) -> None:
    model, expected = loaded(method), maker.prediction(method)
    place(model)
    maker.predict(model)
    assert torch.equal(maker.predict(model), expected)
    mask_free(model)
    assert relative_error(maker.predict(model), expected) < MASK_FREE[method]


@pytest.mark.parametrize("method", TORCHAO_ON_A_CPU)
def test_torchao_cannot_be_kept_in_files(maker: Maker, method: str, tmp_path: Path) -> None:
    model = loaded(method)
    with pytest.raises(ValueError, match="Disk offloading is not supported"):
        model.enable_group_offload(
            CPU, CPU, offload_type="block_level", num_blocks_per_group=1, offload_to_disk_path=str(tmp_path)
        )
        maker.predict(model)


@pytest.mark.parametrize("place", [group("block_level"), group("leaf_level")], ids=["block", "leaf"])
def test_nf4_is_streamed(maker: Maker, place: Callable) -> None:
    model = with_bitsandbytes("nf4")
    before = maker.predict(model)
    place(model)
    assert torch.equal(maker.predict(model), before)


def test_nf4_cannot_be_moved_layer_by_layer(maker: Maker) -> None:
    model = with_bitsandbytes("nf4")
    with pytest.raises(NotImplementedError, match="meta tensor"):
        sequential(model)
        maker.predict(model)


def test_llm_int8_holds_on_to_its_weights_once_it_has_run(maker: Maker) -> None:
    model = with_bitsandbytes("llm-int8")
    maker.predict(model)
    layer = model.single_transformer_blocks[0].proj_mlp
    model._apply(torch.clone)
    assert layer.state.CB.data_ptr() != layer.weight.data_ptr()


# --- Casting ---


@loads_model
def test_cast_layers_are_stored_in_a_byte_an_element() -> None:
    assert looked_at("fp8").transformer_blocks[0].attn.to_q.weight.dtype == torch.float8_e4m3fn


@loads_model
def test_a_cast_model_says_the_precision_it_computes_in() -> None:
    assert looked_at("fp8").dtype == torch.float32


@pytest.mark.parametrize("method", [None, "int8"])
@loads_model
def test_nothing_else_is_cast(method: str | None) -> None:
    assert {x.dtype for x in looked_at(method).parameters()} == {torch.float32}


@loads_model
def test_what_the_library_left_in_full_precision_is_an_error() -> None:
    with pytest.raises(ModelLoadError, match="quantization='int8': torchao left the weights in full precision"):
        finish_quantization(loaded(None), "int8", torch.float32)


@loads_model
def test_a_device_named_by_a_string_is_what_torchao_leaves_in_full_precision() -> None:
    config = transformer_config("int8", torch.float32)
    model = HunyuanVideoTransformer3DModel.from_pretrained(
        FOLDER / "transformer", dtype=torch.float32, device_map={"": "cpu"}, quantization_config=config
    )
    with pytest.raises(ModelLoadError, match="full precision"):
        finish_quantization(model, "int8", torch.float32)


# --- The last layer, which bitsandbytes cannot skip ---


@pytest.mark.parametrize("method", ["nf4", "llm-int8"])
def test_the_last_layer_is_that_of_the_checkpoint(maker: Maker, method: str) -> None:
    model = with_bitsandbytes(method)
    assert type(model.proj_out) is not torch.nn.Linear
    finish_quantization(model, method, torch.float32)
    assert torch.equal(model.proj_out.weight, maker.full.proj_out.weight)
    assert torch.equal(model.proj_out.bias, maker.full.proj_out.bias)


@loads_model
def test_the_last_layer_has_the_precision_of_the_activations() -> None:
    model = with_bitsandbytes("nf4")
    finish_quantization(model, "nf4", torch.bfloat16)
    assert {x.dtype for x in model.proj_out.parameters()} == {torch.bfloat16}


def test_the_last_layer_is_found_among_several_files(maker: Maker, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FOLDER / "transformer", tmp_path / "transformer"))
    whole = folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(whole)
    whole.unlink()
    parts = {"first.safetensors": {}, "second.safetensors": {}}
    for name, tensor in tensors.items():
        parts["second.safetensors" if name.startswith("proj_out") else "first.safetensors"][name] = tensor
    for file, part in parts.items():
        save_file(part, folder / file, {"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    model = with_bitsandbytes("nf4", folder)
    finish_quantization(model, "nf4", torch.float32)
    assert torch.equal(model.proj_out.weight, maker.full.proj_out.weight)


# --- What is passed to the libraries ---


@pytest.mark.parametrize("method", [None, "fp8"])
def test_no_library_is_asked(method: str | None) -> None:
    assert transformer_config(method, torch.bfloat16) is None


def test_nf4_is_asked_for_by_name_and_computes_in_the_profiles_precision() -> None:
    config = transformer_config("nf4", torch.bfloat16)
    assert (config.quantization_method(), config.bnb_4bit_compute_dtype) == ("nf4", torch.bfloat16)


def test_llm_int8_is_asked_for_by_name() -> None:
    assert transformer_config("llm-int8", torch.bfloat16).quantization_method() == "llm_int8"


def test_dynamic_float8_rounds_weights_and_activations() -> None:
    config = transformer_config("fp8-dynamic", torch.bfloat16).quant_type
    assert (config.weight_dtype, config.activation_dtype) == (torch.float8_e4m3fn, torch.float8_e4m3fn)


def test_in_dynamic_float8_one_large_token_does_not_make_the_others_coarse() -> None:
    from torchao.quantization import Float8Tensor

    config = transformer_config("fp8-dynamic", torch.bfloat16).quant_type
    tokens = torch.randn(8, 256, generator=torch.Generator().manual_seed(0)).bfloat16()
    tokens[0] *= 1e5
    for granularity in config.granularity:  # of the activations and of the weights
        rounded = Float8Tensor.from_hp(tokens, config.activation_dtype, granularity=granularity).dequantize()
        errors = (rounded - tokens).float().norm(dim=1) / tokens.float().norm(dim=1)
        assert errors.max() < 0.04  # float8_e4m3fn has 3 bits after the point: up to 1/16, half of it on average


@pytest.mark.parametrize("method", [name for name in NEEDS if name != "fp8"])
def test_each_load_gets_a_list_of_its_own(method: str) -> None:
    first, second = (transformer_config(method, torch.bfloat16) for _ in range(2))
    name = "modules_to_not_convert" if hasattr(first, "modules_to_not_convert") else "llm_int8_skip_modules"
    getattr(first, name).append("x")  # as the library does
    assert "x" not in getattr(second, name)


# --- What the user is warned of ---


@pytest.mark.parametrize("method", ["fp8-dynamic", "int8-dynamic"])
def test_rounding_inputs_without_compiled_blocks_is_warned_of(method: str) -> None:
    assert "compile: true" in warning(method, "cuda", compiled=False)


@pytest.mark.parametrize("method", [None, *(name for name in NEEDS if "dynamic" not in name)])
def test_methods_that_round_weights_alone_need_no_warning(method: str | None) -> None:
    assert warning(method, "cuda", compiled=False) is None


@pytest.mark.parametrize(("device", "compiled"), [("cuda", True), ("cpu", False)])
def test_compiled_blocks_and_cpus_need_no_warning(device: str, compiled: bool) -> None:
    assert warning("int8-dynamic", device, compiled=compiled) is None


def test_the_warning_is_a_note_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(loader, "check_precision", lambda *_: None)
    monkeypatch.setattr(loader, "prepare_device_allocator", lambda: 1 / 0)  # the next step of a load
    with pytest.raises(ZeroDivisionError):
        profile = load_profile("gpu-24gb").model_copy(update={"quantization": "fp8-dynamic"})
        loader.load_model(load_model_config("tiny"), profile, on_note=notes.append)
    assert notes == [warning("fp8-dynamic", "cuda", compiled=False)]


# --- What is refused ---


def test_dynamic_float8_is_refused_in_float32_with_what_it_needs() -> None:
    with pytest.raises(ConfigError, match=r"'fp8-dynamic': .* needs dtypes\.transformer: bfloat16, not float32"):
        require("fp8-dynamic", "cuda", (9, 0), dtype="float32")


def test_dynamic_float8_is_allowed_in_bfloat16() -> None:
    require("fp8-dynamic", "cuda", (9, 0), dtype="bfloat16")


@pytest.mark.parametrize("method", ON_CUDA)
def test_what_needs_cuda_is_refused_on_a_cpu_with_what_can_be_used(method: str) -> None:
    with pytest.raises(ConfigError, match=f"quantization='{method}': .* needs a CUDA device; .*, "
                                          "fp8, fp8-weights, int8, int8-dynamic can be used here"):  # fmt: skip
        require(method, "cpu", None)


@pytest.mark.parametrize("method", ["nf4", "llm-int8"])
@loads_model
def test_diffusers_would_refuse_bitsandbytes_on_a_cpu(method: str) -> None:
    with pytest.raises(RuntimeError, match="No GPU found"):
        loaded(method)


@loads_model
def test_torchao_would_refuse_dynamic_float8_on_a_cpu() -> None:
    with pytest.raises(AssertionError, match="requires CUDA compute capability"):
        loaded("fp8-dynamic")


@on_a_cpu
def test_what_runs_on_a_cpu_is_allowed_there(method: str) -> None:
    require(method, "cpu", None)


def test_full_precision_is_always_allowed() -> None:
    require(None, "cpu", None)


@pytest.mark.parametrize("method", NEEDS)
def test_everything_is_allowed_on_a_new_card(method: str) -> None:
    require(method, "cuda", (9, 0))


def test_an_older_card_is_reported_what_dynamic_float8_needs() -> None:
    with pytest.raises(ConfigError, match=r"needs compute capability 8\.9, this GPU has 8\.6"):
        require("fp8-dynamic", "cuda", (8, 6))


@pytest.mark.parametrize("method", ["fp8", "fp8-weights"])
def test_an_older_card_cannot_compile_float8(method: str) -> None:
    require(method, "cuda", (8, 6))
    with pytest.raises(ConfigError, match=r"in compiled blocks needs compute capability 8\.9, this GPU has 8\.6"):
        require(method, "cuda", (8, 6), compiled=True)


@pytest.mark.parametrize(
    ("method", "offload", "reason"),
    [
        ("nf4", "sequential", "does not support sequential offload, only none, model, group"),
        ("llm-int8", "group", "does not support group offload, only none, model"),
    ],
)
def test_an_offload_that_cannot_move_it_is_refused(method: str, offload: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        require(method, "cuda", (9, 0), offload)


def test_files_that_cannot_hold_it_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"group\.to_disk must be false"):
        require("int8", "cuda", (9, 0), "group", to_disk=True)


@pytest.mark.parametrize(("method", "library"), [("int8", "torchao"), ("nf4", "bitsandbytes")])
def test_a_missing_library_is_named(method: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=rf"{library} is not installed \(pip install 'hunyuan-local\[quant\]'\)"):
        require(method, "cuda", (9, 0))


def test_what_needs_a_missing_library_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(ConfigError, match="with the rest of this profile, fp8 can be used here"):
        require("int8", "cpu", None)


# --- Quiet imports ---


def test_the_libraries_print_nothing_on_import(starts_process: None, with_extras: None) -> None:
    code = (
        "from hunyuan_local.pipeline.library_output import hide_import_noise\n"
        "hide_import_noise()\n"
        "from diffusers import HunyuanVideoImageToVideoPipeline, HunyuanVideoTransformer3DModel\n"
        "import bitsandbytes, torchao.quantization\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_other_messages_of_the_same_libraries_are_heard(caplog: pytest.LogCaptureFixture) -> None:
    import logging

    from hunyuan_local.pipeline.library_output import hide_import_noise

    hide_import_noise()
    logging.getLogger("torchao").warning("Failed to load /somewhere/_C.so: no CUDA")
    logging.getLogger("torchao").warning("a version that does not fit")
    assert caplog.messages == ["a version that does not fit"]
