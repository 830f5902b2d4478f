"""Features that need a missing extra are refused by name; ``test_extras.py`` tests environments without it."""

from __future__ import annotations

import importlib.util
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from hunyuan_local.backends.local.profile_choice import require_libraries
from hunyuan_local.config import LoraConfig, load_model_config, load_profile
from hunyuan_local.config.extras import MODULES, is_installed, require_extra
from hunyuan_local.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
TINY, CPU = load_model_config("tiny"), load_profile("cpu")


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a module appear not to be installed."""
    find = importlib.util.find_spec

    def hide(name: str) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda wanted: None if wanted == name else find(wanted))

    return hide


@pytest.mark.parametrize(("extra", "module"), [(extra, module) for extra in MODULES for module in MODULES[extra]])
def test_a_missing_module_is_an_error_that_names_it_and_the_extra(
    extra: str, module: str, hide: Callable[[str], None]
) -> None:
    hide(module)
    words = rf"needs the extra '{extra}': pip install 'hunyuan-local\[{extra}\]' \({module} is not installed\)"
    with pytest.raises(ConfigError, match=words):
        require_extra(extra, "the thing")
    assert not is_installed(extra)


@pytest.mark.parametrize("extra", MODULES)
def test_with_its_modules_nothing_is_refused(extra: str) -> None:
    require_extra(extra, "the thing")
    assert is_installed(extra)


def test_each_of_them_is_an_extra_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert MODULES.keys() <= project["optional-dependencies"].keys()


def test_a_quantised_profile_without_its_library_is_refused(hide: Callable[[str], None]) -> None:
    hide("torchao")
    profile = CPU.model_copy(update={"quantization": "int8"})
    with pytest.raises(ConfigError, match=r"quantization='int8': torchao is not installed \(pip install .*\[quant\]"):
        require_libraries(TINY, profile)


def test_a_gguf_file_without_its_library_is_refused(hide: Callable[[str], None]) -> None:
    hide("gguf")
    with pytest.raises(ConfigError, match=r"transformer_gguf='a.gguf': gguf is not installed .*\[quant\]"):
        require_libraries(TINY.model_copy(update={"transformer_gguf": "a.gguf"}), None)


def test_a_lora_on_a_quantised_transformer_without_peft_is_refused(hide: Callable[[str], None]) -> None:
    hide("peft")
    config = TINY.model_copy(update={"lora": (LoraConfig(path="style.safetensors"),)})
    with pytest.raises(ConfigError, match=r"lora=\['style.safetensors'\] .*pip install 'hunyuan-local\[lora\]'"):
        require_libraries(config, CPU.model_copy(update={"quantization": "int8"}))


def test_a_plain_lora_needs_no_library(hide: Callable[[str], None]) -> None:
    hide("peft")
    require_libraries(TINY.model_copy(update={"lora": (LoraConfig(path="style.safetensors"),)}), CPU)
