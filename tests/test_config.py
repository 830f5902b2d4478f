"""Models and profiles as data."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import re
from pathlib import Path

import pytest
import yaml

from hunyuan_local.config import (
    GenerationDefaults,
    RuntimeProfile,
    load_model_config,
    load_profile,
    model_names,
    presets,
    profile_names,
)
from hunyuan_local.errors import ConfigError
from hunyuan_local.resolved import FilledRequest


@pytest.mark.parametrize("name", model_names())
def test_every_shipped_model_config_reads(name: str) -> None:
    assert load_model_config(name).name == name


def test_a_model_has_a_default_for_each_field_that_a_filled_request_requires() -> None:
    assert inspect.get_annotations(FilledRequest, eval_str=True) == {
        name: field.annotation for name, field in GenerationDefaults.model_fields.items()
    }


@pytest.mark.parametrize("name", profile_names())
def test_every_shipped_profile_reads(name: str) -> None:
    assert load_profile(name).name == name


@pytest.mark.parametrize("name", ["hunyuan-video", "fast-hunyuan"])
def test_the_large_models_use_diffusers_own_template(name: str) -> None:
    source = (
        Path(importlib.util.find_spec("diffusers").origin).parent / "pipelines/hunyuan_video/pipeline_hunyuan_video.py"
    )
    values = {
        node.targets[0].id: node.value for node in ast.parse(source.read_text()).body if isinstance(node, ast.Assign)
    }
    template = ast.literal_eval(values["DEFAULT_PROMPT_TEMPLATE"])
    assert load_model_config(name).prompt_template.model_dump() == template


@pytest.mark.parametrize("name", ["hunyuan-video", "fast-hunyuan"])
@pytest.mark.parametrize("size", [(1280, 720), (144, 80), (16, 16)])
def test_the_large_models_render_what_is_asked(name: str, size: tuple[int, int]) -> None:
    assert load_model_config(name).render_size(*size) == size


@pytest.mark.parametrize(
    ("asked", "rendered"),
    [((1280, 720), (144, 80)), ((720, 1280), (80, 144)), ((144, 80), (144, 80)), ((640, 352), (144, 80))],
)
def test_tiny_renders_its_native_canvas(asked: tuple[int, int], rendered: tuple[int, int]) -> None:
    assert load_model_config("tiny").render_size(*asked) == rendered


def test_no_profile_runs_the_transformer_in_float16() -> None:
    assert {load_profile(name).dtypes.transformer for name in profile_names()} <= {"float32", "bfloat16"}


def test_float16_for_the_transformer_is_refused() -> None:
    fields = load_profile("gpu-80gb").model_dump()
    fields["dtypes"]["transformer"] = "float16"
    with pytest.raises(ValueError, match="bfloat16"):
        RuntimeProfile(**fields)


def test_an_unknown_model_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'nope'.*hunyuan-video.*tiny"):
        load_model_config("nope")


def test_an_unknown_profile_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'nope'.*cpu"):
        load_profile("nope")


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model_index\.json"):
        load_model_config(str(tmp_path))


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("a.gguf", b"GGUF\x03\x00\x00\x00", "a single GGUF file; name it as transformer_gguf in a model's YAML file"),
        ("a.pt", b"PK\x03\x04....", "a single file in a pickle or archive format"),
        ("a.mp4", b"\x00\x00\x00\x20ftypisom", "a file, not a model"),
        ("empty", b"", "a file, not a model"),
        ("a.safetensors", {"x_embedder.proj.weight": 1}, "a single safetensors file; it has no configurations"),
        ("lora", {"transformer_blocks.0.attn.to_q.lora_A.weight": 1}, "a single LoRA file; give it with --lora"),
    ],
)
def test_a_single_file_is_refused_as_what_it_is(
    file: str, content: bytes | dict, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(content, dict):
        header = json.dumps(content).encode()
        content = len(header).to_bytes(8, "little") + header
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / file).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=re.escape(f"model='models/{file}': is {said}")):  # looks like a Hub id
        load_model_config(f"models/{file}")


def test_a_file_that_is_not_there_is_not_looked_for_on_the_hub() -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        load_model_config("models/hunyuan.safetensors")


def test_the_home_of_a_user_who_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigError, match="model='~nobody-of-that-name/m': no such home folder"):
        load_model_config("~nobody-of-that-name/m")


@pytest.mark.parametrize("name", [each.name for each in presets() if each.identity == each.model_id != "assets/tiny"])
def test_the_hub_id_of_a_preset_takes_its_settings(name: str) -> None:
    preset = load_model_config(name)
    found = load_model_config(preset.model_id)
    assert (found.takes_image, found.defaults, found.licence) == (preset.takes_image, preset.defaults, preset.licence)


def test_a_hub_id_takes_the_13b_preset() -> None:
    config = load_model_config("someone/finetune")
    assert (config.model_id, config.defaults) == ("someone/finetune", load_model_config("hunyuan-video").defaults)


def preset(template: str = "x {}", crop_start: int = 2, **defaults: object) -> str:
    """A whole model config as YAML, with some defaults changed; None omits one."""
    values = dict(load_model_config("tiny").defaults) | defaults
    return yaml.safe_dump(
        {
            "name": "mine",
            "title": "t",
            "model_id": "a/b",
            "prompt_template": {"template": template, "crop_start": crop_start},
            "defaults": {name: value for name, value in values.items() if value is not None},
        }
    )


def test_a_config_file_can_be_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(preset())
    assert load_model_config(str(file)).name == "mine"


def test_a_config_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(preset(), encoding="utf-8-sig")
    assert load_model_config(str(file)).name == "mine"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "not valid YAML"),
        ("{name: x}", "title"),
        ("[1]", "file"),
        (preset(template="no place"), "exactly once"),
        (preset(crop_start=0), "crop_start"),
        (preset(width=None), "defaults.width"),
        (preset(height=17), "height=17"),
        (preset(seed=3), "defaults.seed"),
        ("\xff", "UTF-8"),
    ],
)
def test_a_bad_config_file_is_refused_by_field(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        load_model_config(str(file))
    assert named in str(caught.value) and "bad.yaml" in str(caught.value)
