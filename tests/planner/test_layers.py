"""Layers read from the real classes, and kept on disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hunyuan_local.config import load_model_config
from hunyuan_local.errors import ModelLoadError
from hunyuan_local.planner import layers
from hunyuan_local.planner.architecture import Clip
from hunyuan_local.planner.checkpoint import read_architecture

KEY = Clip(vocab_size=100, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2).key
PLAN = """
import sys
from hunyuan_local.config import load_model_config
from hunyuan_local.planner.checkpoint import read_architecture
print(read_architecture(load_model_config("tiny")).transformer.parameters, "torch" in sys.modules)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HUNYUAN_LOCAL_CACHE_DIR", str(tmp_path))
    layers.layers_of.cache_clear()
    return tmp_path / "layers"


def test_layers_are_kept_on_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = layers.layers_of(*KEY)
    layers.layers_of.cache_clear()
    monkeypatch.setattr(layers, "_read", lambda components: pytest.fail("read again"))
    assert layers.layers_of(*KEY) == found and len(list(folder.iterdir())) == 1


def test_a_damaged_file_is_read_again(folder: Path) -> None:
    found = layers.layers_of(*KEY)
    layers.layers_of.cache_clear()
    next(folder.iterdir()).write_text("[{")
    assert layers.layers_of(*KEY) == found


def test_another_configuration_has_other_layers(folder: Path) -> None:
    larger = Clip(vocab_size=100, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    assert layers.layers_of(*larger.key) != layers.layers_of(*KEY)


def test_a_plan_imports_no_torch_even_without_kept_layers(folder: Path, starts_process: None) -> None:
    done = subprocess.run([sys.executable, "-c", PLAN], capture_output=True, text=True, check=True)
    expected = read_architecture(load_model_config("tiny")).transformer.parameters
    assert done.stdout.split() == [str(expected), "False"]


def test_a_configuration_that_the_class_refuses_is_an_error(
    folder: Path, starts_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "has_torch", lambda: False)
    with pytest.raises(ModelLoadError, match="the layers of CLIPTextModel cannot be read"):
        layers.layers_of("CLIPTextModel", '{"hidden_size": "many"}')
