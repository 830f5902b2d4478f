"""The header of a LoRA file, read without torch: other architectures and invalid files are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest
from safetensors.numpy import save_file

from hunyuan_local.config import LoraConfig, load_model_config
from hunyuan_local.errors import ConfigError, HunyuanLocalError, ModelLoadError
from hunyuan_local.planner.added_files import check_added_files
from hunyuan_local.weights.architecture import is_known_other, other_architecture
from hunyuan_local.weights.layer_names import is_like_flux
from hunyuan_local.weights.lora_header import Settings, read_header

KEY = "transformer.transformer_blocks.0.attn.to_q.lora_A.weight"


def write(path: Path, metadata: dict[str, str] | None = None, keys: tuple[str, ...] = (KEY,)) -> Path:
    save_file({key: numpy.zeros((4, 128), "float32") for key in keys}, path, metadata)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(HunyuanLocalError) as caught:
        read_header(LoraConfig(path=str(path)))
    assert str(caught.value).startswith(f"lora={str(path)!r}: ")
    return str(caught.value)


# --- Another architecture ---


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("modelspec.architecture", "flux-1-dev/lora"),
        ("modelspec.architecture", "stable-diffusion-xl-v1-base/lora"),
        ("modelspec.architecture", "hunyuan-video-i2v/lora"),
        ("modelspec.architecture", "hunyuan-video-1.5/lora"),
        ("modelspec.architecture", "framepack"),
        ("modelspec.architecture", "hunyuan-dit-g2/lora"),
        ("modelspec.architecture", "something-new/lora"),
        ("ss_base_model_version", "flux1"),
        ("ss_base_model_version", "wan2.1"),
        ("architecture", "ltxv"),
        ("ss_network_module", "networks.lora_flux"),
        ("ss_sd_model_name", "/models/flux1-dev.safetensors"),
        ("modelspec.implementation", "https://github.com/lllyasviel/FramePack"),
        ("base_model", "Wan-AI/Wan2.1-T2V-14B"),
    ],
)
def test_a_header_of_another_architecture_is_refused_with_its_value(field: str, value: str, tmp_path: Path) -> None:
    assert f"{field}={value!r}" in refusal(write(tmp_path / "a.safetensors", {field: value}))


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"format": "pt"},
        {"modelspec.architecture": "hunyuan-video/lora", "ss_base_model_version": "hunyuan_video"},
        {"modelspec.architecture": "HunyuanVideo"},
        {"modelspec.architecture": "hunyuan-video-t2v-720p/lora"},
        {"modelspec.architecture": "", "ss_base_model_version": "unknown"},
        {"ss_network_module": "networks.lora", "ss_sd_model_name": "mp_rank_00_model_states.pt"},
        {"ss_sd_model_name": "/flux/hunyuan_video_720_cfgdistill_fp8_e4m3fn.safetensors"},
        {"modelspec.implementation": "https://github.com/Tencent/HunyuanVideo"},
        {"base_model": "FastVideo/FastHunyuan-diffusers"},
    ],
)
def test_a_header_of_this_architecture_or_of_none_is_accepted(metadata: dict[str, str], tmp_path: Path) -> None:
    assert read_header(LoraConfig(path=str(write(tmp_path / "a.safetensors", metadata)))).notes == ()


@pytest.mark.parametrize(
    ("value", "accepted"),
    [
        ("hunyuan-video-i2v/lora", True),
        ("hunyuan-video/lora", True),
        ("hunyuan-video-t2v-720p/lora", False),
        ("hunyuan-video-1.5-i2v/lora", False),
        ("wan2.1-i2v", False),
    ],
)
def test_an_image_to_video_model_takes_what_is_not_of_text_to_video(value: str, accepted: bool) -> None:
    assert (other_architecture({"modelspec.architecture": value}, takes_image=True) is None) is accepted


@pytest.mark.parametrize(
    ("name", "other"), [("hyvid", False), ("pig", False), ("flux", True), ("wan", True), ("hyvid15", True)]
)
def test_what_is_a_known_other(name: str, other: bool) -> None:
    assert is_known_other(name) == other


def test_an_adapter_config_of_another_model_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "adapter_model.safetensors")
    settings = {"base_model_name_or_path": "black-forest-labs/FLUX.1-dev"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    assert "black-forest-labs/FLUX.1-dev" in refusal(path)


def test_a_key_of_tencents_image_to_video_trainer_is_refused(tmp_path: Path) -> None:
    key = "Hunyuan_video_I2V_lora_double_blocks_0_img_attn_qkv.lora_down.weight"
    assert f"{key} is a key of HunyuanVideo-I2V" in refusal(write(tmp_path / "a.safetensors", keys=(key,)))


@pytest.mark.parametrize(
    ("end", "words"),
    [("dora_scale", "DoRA"), ("oft_blocks", "OFT"), ("lora_magnitude_vector.weight", "DoRA"), ("weight", "checkpoint")],
)
def test_a_kind_that_cannot_be_added_is_refused_before_the_model(end: str, words: str, tmp_path: Path) -> None:
    key = f"lora_unet_double_blocks_0_img_attn_qkv.{end}"
    text = refusal(write(tmp_path / "a.safetensors", keys=(KEY, key)))
    assert f"{key} is of an unsupported kind: " in text
    assert words in text


def test_a_key_of_a_text_encoder_may_be_of_any_kind(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", keys=(KEY, "lora_te1_text_model_mlp_fc1.dora_scale"))
    assert KEY in read_header(LoraConfig(path=str(path))).shapes


def test_a_name_that_says_image_to_video_is_noted(tmp_path: Path) -> None:
    header = read_header(LoraConfig(path=str(write(tmp_path / "hunyuan-i2v-dance.safetensors"))))
    assert "image to video" in header.notes[0]


@pytest.mark.parametrize(("name", "notes"), [("hunyuan-i2v-dance", 0), ("dance", 0), ("hunyuan-t2v-dance", 1)])
def test_for_an_image_to_video_model_a_name_that_says_text_to_video_is_noted(
    name: str, notes: int, tmp_path: Path
) -> None:
    header = read_header(LoraConfig(path=str(write(tmp_path / f"{name}.safetensors"))), takes_image=True)
    assert ["its name indicates text to video" in note for note in header.notes] == [True] * notes


# --- The pattern of FLUX.1 ---


def layers(double: int, single: int) -> set[str]:
    return {f"transformer_blocks.{i}.attn.to_q" for i in range(double)} | {
        f"single_transformer_blocks.{i}.proj_mlp" for i in range(single)
    }


REFINER = "context_embedder.token_refiner.refiner_blocks.0.attn.to_q"


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        (layers(19, 38), True),
        (layers(19, 38) | {"time_text_embed.text_embedder.linear_1", "proj_out"}, True),
        (layers(19, 0), True),
        (layers(0, 38), True),
        (layers(20, 40), False),
        (layers(20, 0), False),
        (layers(19, 40), False),
        (layers(19, 38) | {REFINER}, False),
        (layers(5, 0), False),
    ],
)
def test_flux_blocks_are_distinguished_from_those_of_this_model(changed: set[str], found: bool) -> None:
    assert is_like_flux(changed, layers(20, 40) | {REFINER}) == found


def test_in_a_small_model_the_pattern_needs_both_kinds_of_block() -> None:
    small = layers(2, 4) | {REFINER}
    assert [is_like_flux(changed, small) for changed in (layers(1, 2), layers(1, 0), layers(0, 2))] == [
        True, False, False,
    ]  # fmt: skip


# --- Files in other formats ---


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"PK\x03\x04" + bytes(50), "PyTorch file"),
        (b"\x80\x02}q\x00.", "pickle"),
        (b"GGUF" + bytes(50), "GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
        (b"<!doctype html><html></html>", "web page"),
        (b"not tensors at all", "truncated or damaged"),
    ],
)
def test_a_file_of_another_format_is_named_as_what_it_is(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    text = refusal(path)
    assert "a.safetensors cannot be read as a safetensors file" in text
    assert words in text


@pytest.mark.parametrize("keys", [1, 3, 9])  # the length of the header, with which it begins, may look like a format
def test_a_file_that_was_cut_short_is_refused(keys: int, tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", keys=tuple(f"{KEY}{number}" for number in range(keys)))
    path.write_bytes(path.read_bytes()[:-8])
    assert "truncated or damaged" in refusal(path)


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    assert "contains no tensors" in refusal(write(tmp_path / "a.safetensors", keys=()))


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "a folder" in refusal(tmp_path)


# --- Settings of the training ---


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "lora_adapter_metadata is not JSON"),
        ("[]", "'[]', but it must be a JSON object"),
        ("null", "'null', but it must be a JSON object"),
        ('{"transformer.lora_alpha": "8"}', "lora_alpha='8', but it must be a number"),
        ('{"transformer.lora_alpha": NaN}', "lora_alpha=nan"),
        ('{"transformer.lora_alpha": true}', "lora_alpha=True"),
        ('{"transformer.alpha_pattern": [4]}', "alpha_pattern=[4]"),
        ('{"transformer.alpha_pattern": {"to_q": "4"}}', "alpha_pattern={'to_q': '4'}"),
        ('{"transformer.alpha_pattern": {"(": 4}}', "regular expression"),
        ('{"transformer.use_rslora": "yes"}', "use_rslora='yes'"),
        ('{"transformer.r": 0}', "r=0"),
    ],
)
def test_settings_that_cannot_be_read_are_named(text: str, words: str, tmp_path: Path) -> None:
    assert words in refusal(write(tmp_path / "a.safetensors", {"lora_adapter_metadata": text}))


@pytest.mark.parametrize("settings", [{"transformer.lora_alpha": None}, {"text_encoder.lora_alpha": "8"}, {}])
def test_settings_that_say_nothing_of_the_transformer_leave_the_scale_at_1(settings: dict, tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", {"lora_adapter_metadata": json.dumps(settings)})
    assert read_header(LoraConfig(path=str(path))).settings.scale(["any"], 4) == 1


def test_an_adapter_config_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text("{")
    assert str(tmp_path / "adapter_config.json") in refusal(path)


def test_an_adapter_config_of_another_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{")
    assert read_header(LoraConfig(path=str(write(tmp_path / "a.safetensors")))).settings == Settings()


def test_a_file_of_peft_without_its_settings_is_noted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", keys=("base_model.model.transformer_blocks.0.attn.to_q.lora_A.weight",))
    assert "lora_alpha" in read_header(LoraConfig(path=str(path))).notes[0]


def test_the_settings_file_of_peft_is_part_of_the_identity(tmp_path: Path) -> None:
    file = write(tmp_path / "adapter_model.safetensors")
    settings = tmp_path / "adapter_config.json"
    settings.write_text('{"lora_alpha": 8}')
    config = LoraConfig(path=str(file))
    first = read_header(config).hashes(config)
    settings.write_text('{"lora_alpha": 16}')
    second = read_header(config).hashes(config)
    assert list(second) == [str(file), str(settings)]
    assert first[str(file)] == second[str(file)]
    assert first[str(settings)] != second[str(settings)]


# --- What is checked before a model is loaded ---


def test_a_missing_lora_is_refused_before_the_model(tmp_path: Path) -> None:
    config = load_model_config("tiny").model_copy(
        update={"lora": (LoraConfig(path=str(tmp_path / "none.safetensors")),)}
    )
    with pytest.raises(ConfigError, match=r"lora=.*none\.safetensors.*no such file"):
        check_added_files(config)


def test_a_damaged_lora_is_refused_before_the_model(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"")
    config = load_model_config("tiny").model_copy(update={"lora": (LoraConfig(path=str(tmp_path / "a.safetensors")),)})
    with pytest.raises(ModelLoadError, match="is empty"):
        check_added_files(config)


def test_no_field_without_text_says_anything() -> None:
    assert other_architecture({"architecture": None, "base_model": {"name": "flux"}, "model_type": 3}) is None
