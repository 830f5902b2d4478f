"""The transformer from a GGUF file: every weight is loaded, near full precision, and wrong files are refused."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path

import accelerate
import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel
from diffusers.loaders.single_file_utils import convert_hunyuan_video_transformer_to_diffusers
from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter
from gguf_files import official_names, write_gguf

from hunyuan_local.config import load_model_config
from hunyuan_local.errors import ConfigError, ModelLoadError
from hunyuan_local.pipeline.attention.mask_free import drop_padding
from hunyuan_local.pipeline.attention.rotary import keep_rotary_tables
from hunyuan_local.pipeline.loading.gguf import load_gguf_transformer, require_gguf
from hunyuan_local.weights.gguf_header import check_gguf_header

CONFIG_FOLDER = Path(load_model_config("tiny").source) / "transformer"
CPU = torch.device("cpu")
KINDS = {"Q8_0": 0.02, "Q5_1": 0.15, "Q4_0": 0.3, "BF16": 0.01}  # measured: 0.007, 0.05, 0.11, 0.002


@pytest.fixture(scope="module")
def full(loads_model: None) -> HunyuanVideoTransformer3DModel:
    """The built-in transformer in full precision."""
    return HunyuanVideoTransformer3DModel.from_pretrained(CONFIG_FOLDER).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def official(full: HunyuanVideoTransformer3DModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like the published ones, in Q8_0."""
    return write_gguf(tmp_path_factory.mktemp("gguf") / "official.gguf", official_names(full.state_dict()), "Q8_0")


def load(path: Path, dtype: torch.dtype = torch.float32) -> HunyuanVideoTransformer3DModel:
    return load_gguf_transformer(path, CONFIG_FOLDER, dtype)


@torch.no_grad()
def predict(model: HunyuanVideoTransformer3DModel, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """One forward pass on fixed inputs."""
    generator = torch.Generator().manual_seed(0)
    sizes = {
        "hidden_states": (1, 16, 3, 10, 18),
        "encoder_hidden_states": (1, 24, 96),
        "pooled_projections": (1, 96),
    }
    inputs = {name: torch.randn(size, generator=generator).to(dtype) for name, size in sizes.items()}
    inputs["encoder_attention_mask"] = (torch.arange(24) < 9).to(dtype)[None]
    inputs |= {"timestep": torch.tensor([700.0]), "guidance": torch.tensor([6000.0], dtype=dtype)}
    return model(**inputs, return_dict=False)[0].float()


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


# --- What is loaded ---


def test_the_names_that_are_written_are_those_that_the_library_converts(full: HunyuanVideoTransformer3DModel) -> None:
    # The library supports the fused layer of single blocks only in the 13 B model's width.
    config = dict(full.config) | {"num_attention_heads": 24, "attention_head_dim": 128, "num_single_layers": 1}
    with torch.device("meta"):
        wide = HunyuanVideoTransformer3DModel.from_config(config).state_dict()
    converted = convert_hunyuan_video_transformer_to_diffusers(official_names(wide))
    assert {name: x.shape for name, x in converted.items()} == {name: x.shape for name, x in wide.items()}


@pytest.mark.parametrize(("kind", "bound"), KINDS.items())
def test_a_forward_pass_is_near_full_precision(
    full: HunyuanVideoTransformer3DModel, tmp_path: Path, kind: str, bound: float
) -> None:
    path = write_gguf(tmp_path / "x.gguf", official_names(full.state_dict()), kind)
    assert 0 < relative_error(predict(load(path)), predict(full)) < bound


def test_a_file_in_full_precision_is_exact(full: HunyuanVideoTransformer3DModel, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "x.gguf", official_names(full.state_dict()), "F32")
    assert torch.equal(predict(load(path)), predict(full))


def test_names_of_diffusers_give_the_same_weights(
    full: HunyuanVideoTransformer3DModel, official: Path, tmp_path: Path
) -> None:
    path = write_gguf(tmp_path / "x.gguf", full.state_dict(), "Q8_0")
    assert torch.equal(predict(load(path)), predict(load(official)))


def test_the_blocks_stay_as_the_file_has_them(official: Path) -> None:
    blocks = load(official).single_transformer_blocks
    assert {type(part) for part in blocks.modules() if isinstance(part, torch.nn.Linear)} == {GGUFLinear}


def test_nothing_is_left_without_a_value(official: Path) -> None:
    assert [name for name, x in load(official).named_parameters() if x.is_meta] == []


def test_the_rest_has_the_precision_of_the_profile(official: Path) -> None:
    model = load(official, torch.bfloat16)
    rest = {x.dtype for x in model.parameters() if not isinstance(x, GGUFParameter)}
    assert (model.dtype, rest) == (torch.bfloat16, {torch.bfloat16})


def test_a_forward_pass_in_bfloat16_is_near_full_precision(
    full: HunyuanVideoTransformer3DModel, official: Path
) -> None:
    found = predict(load(official, torch.bfloat16), torch.bfloat16)
    assert relative_error(found, predict(full)) < 0.03  # measured: 0.014


def test_a_file_with_biases_and_norms_in_bfloat16_is_read(full: HunyuanVideoTransformer3DModel, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "x.gguf", official_names(full.state_dict()), "BF16", lambda name, tensor: True)
    assert relative_error(predict(load(path)), predict(full)) < 0.02


def test_it_needs_no_network(official: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*call: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert isinstance(load(official), HunyuanVideoTransformer3DModel)


# --- Using it ---


def mask_free(model: HunyuanVideoTransformer3DModel) -> None:
    drop_padding(model, "native")
    keep_rotary_tables(model)


def group(level: str) -> Callable[[HunyuanVideoTransformer3DModel], None]:
    blocks = 1 if level == "block_level" else None
    return lambda model: model.enable_group_offload(CPU, CPU, offload_type=level, num_blocks_per_group=blocks)


@pytest.mark.parametrize(
    "change",
    [lambda model: model._apply(torch.clone), mask_free, group("block_level"), group("leaf_level")],
    ids=["copied", "mask-free", "group-block", "group-leaf"],
)
def test_it_can_be_moved_streamed_and_attended_to_without_a_mask(official: Path, change: Callable) -> None:
    model = load(official)
    before = predict(model)
    change(model)
    assert torch.allclose(predict(model), before, atol=1e-4)


def test_single_layers_cannot_be_moved(official: Path) -> None:
    model = load(official)
    with pytest.raises(KeyError):
        accelerate.cpu_offload(model, CPU)
        predict(model)


def test_sequential_offload_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"transformer_gguf='x\.gguf'.*sequential offload, only none, model"):
        require_gguf("x.gguf", None, "sequential")


def test_a_second_quantisation_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"quantization='nf4': transformer_gguf='x\.gguf' is already quantized"):
        require_gguf("x.gguf", "nf4")


def test_a_missing_library_is_named(official: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ConfigError, match=r"gguf is not installed \(pip install 'hunyuan-local\[quant\]'\)"):
        load(official)


# --- Wrong files ---


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"transformer_gguf=.*nothing\.gguf.*No such file"):
        load(tmp_path / "nothing.gguf")


def test_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(ConfigError, match="not a GGUF file"):
        load(path)


@pytest.mark.parametrize("kept", [7, 3000, -5000])
def test_a_file_that_ends_too_soon_is_refused(official: Path, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(official.read_bytes()[:kept])
    with pytest.raises(ModelLoadError, match=r"x\.gguf: cannot be read: .*it again"):
        load(path)


def test_missing_weights_are_named(full: HunyuanVideoTransformer3DModel, tmp_path: Path) -> None:
    tensors = official_names(full.state_dict())
    del tensors["final_layer.linear.bias"]
    with pytest.raises(ModelLoadError, match=r"1 missing, such as proj_out\.bias"):
        load(write_gguf(tmp_path / "x.gguf", tensors, "Q8_0"))


def test_weights_of_another_model_are_named(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "x.gguf", {"blk.0.attn_q.weight": torch.ones(32, 32)}, "F32")
    with pytest.raises(ModelLoadError, match=r"not the weights of .*not of this model, such as blk\.0\.attn_q\.weight"):
        load(path)


def test_weights_of_another_size_are_refused(full: HunyuanVideoTransformer3DModel, tmp_path: Path) -> None:
    tensors = official_names(full.state_dict())
    tensors["double_blocks.0.img_mlp.fc1.weight"] = torch.zeros(512, 64)
    with pytest.raises(ModelLoadError, match="does not fit the transformer"):
        load(write_gguf(tmp_path / "x.gguf", tensors, "Q8_0"))


def test_the_channels_of_an_image_to_video_model_are_refused(
    full: HunyuanVideoTransformer3DModel, tmp_path: Path
) -> None:
    tensors = official_names(full.state_dict())
    tensors["img_in.proj.weight"] = torch.zeros(128, 33, 1, 2, 2)
    with pytest.raises(ModelLoadError, match=r"x_embedder\.proj\.weight .*\[128, 33, 1, 2, 2\].*image-to-video"):
        load(write_gguf(tmp_path / "x.gguf", tensors, "Q8_0"))


def test_too_few_rows_of_a_fused_layer_are_named(full: HunyuanVideoTransformer3DModel, tmp_path: Path) -> None:
    tensors = official_names(full.state_dict())
    tensors["single_blocks.0.linear1.weight"] = torch.zeros(300, 128)
    with pytest.raises(ModelLoadError, match=r"single_blocks\.0\.linear1\.weight has 300 rows"):
        load(write_gguf(tmp_path / "x.gguf", tensors, "Q8_0"))


def small(tmp_path: Path, architecture: str, title: str | None = None, name: str = "x.gguf") -> Path:
    """A file whose header says this; its weights do not matter."""
    return write_gguf(
        tmp_path / name, {"a": torch.ones(32, 32)}, "F32", architecture=architecture, title=title
    )  # fmt: skip


@pytest.mark.parametrize(
    ("architecture", "title"),
    [("flux", None), ("wan", None), ("ltxv", None), ("hyvid", "hunyuan-video-i2v-720p"), ("hyvid15", None)],
)
def test_a_header_of_another_architecture_is_refused_with_its_value(
    architecture: str, title: str | None, tmp_path: Path
) -> None:
    said = f"general.name={title!r}" if title else f"general.architecture={architecture!r}"
    with pytest.raises(ModelLoadError) as caught:
        check_gguf_header(small(tmp_path, architecture, title))
    assert str(caught.value).startswith(f"transformer_gguf={str(tmp_path / 'x.gguf')!r}: its header says {said}")


def test_a_header_of_an_unknown_architecture_is_noted(tmp_path: Path) -> None:
    assert "general.architecture='pig'" in check_gguf_header(small(tmp_path, "pig"))[0]


def test_a_file_name_that_says_image_to_video_is_noted(tmp_path: Path) -> None:
    notes = check_gguf_header(small(tmp_path, "hyvid", name="hunyuan-video-i2v-720p-Q4_0.gguf"))
    assert ["image to video" in note for note in notes] == [True]


@pytest.mark.parametrize(("title", "accepted"), [("hunyuan-video-i2v-720p", True), ("Hunyuan Video T2V", False)])
def test_an_image_to_video_model_takes_the_header_of_its_task(title: str, accepted: bool, tmp_path: Path) -> None:
    path = small(tmp_path, "hyvid", title, name=f"{title}.gguf")
    if accepted:
        assert check_gguf_header(path, takes_image=True) == []
    else:
        with pytest.raises(ModelLoadError, match=r"not HunyuanVideo \(image to video\).*HunyuanVideo-I2V-gguf"):
            check_gguf_header(path, takes_image=True)


def test_a_published_header_has_no_note(tmp_path: Path) -> None:
    assert check_gguf_header(small(tmp_path, "hyvid", "Hunyuan Video T2V")) == []


def test_a_kind_of_number_that_the_library_does_not_know_is_named(
    full: HunyuanVideoTransformer3DModel, tmp_path: Path
) -> None:
    path = write_gguf(
        tmp_path / "x.gguf", official_names(full.state_dict()), "TQ2_0", lambda name, x: x.shape[-1] == 512
    )
    with pytest.raises(ModelLoadError, match=r"cannot be read: .*unsupported"):
        load(path)
