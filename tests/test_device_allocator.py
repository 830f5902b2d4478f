"""The settings of torch's GPU allocator: when they are set, and what doctor says about them."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator

import pytest
import torch

from hunyuan_local.config import load_model_config, load_profile
from hunyuan_local.config.rewriting import RewriteConfig
from hunyuan_local.pipeline.loading import loader
from hunyuan_local.pipeline.memory import device_allocator
from hunyuan_local.pipeline.memory.device_allocator import CHOICES, prepare_device_allocator
from hunyuan_local.pipeline.text import language_model

OURS = "expandable_segments:True,pinned_max_cached_size_mb:1"


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What torch is asked for on a Linux machine with CUDA, on which nothing is set in the environment."""
    asked: list[str] = []
    for name in CHOICES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "release", lambda: "6.8.0-45-generic")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch._C, "_accelerator_setAllocatorSettings", asked.append)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)
    prepare_device_allocator.cache_clear()
    yield asked
    prepare_device_allocator.cache_clear()


def failing(error: Exception, at: Callable[[str], bool] = lambda text: True) -> Callable[..., None]:
    def fail(text: object = "", **_: object) -> None:
        if at(str(text)):
            raise error

    return fail


def test_segments_are_expandable_and_page_locked_copies_are_not_rounded(settings: list[str]) -> None:
    assert prepare_device_allocator() == "expandable segments"
    assert settings == [OURS]


def test_it_is_set_once_a_process(settings: list[str]) -> None:
    prepare_device_allocator()
    prepare_device_allocator()
    assert settings == [OURS]


@pytest.mark.parametrize("name", CHOICES)
def test_settings_of_the_user_are_left_alone(settings: list[str], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "max_split_size_mb:512")
    assert prepare_device_allocator() == f"{name}=max_split_size_mb:512, from the environment"
    assert settings == []


def test_an_empty_setting_chooses_nothing(settings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "")
    assert prepare_device_allocator() == "expandable segments"


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        ((sys, "platform"), "win32", "torch has no expandable segments on win32"),
        ((torch.version, "cuda"), None, "torch has expandable segments for CUDA only"),
        ((platform, "release"), lambda: "5.15.167.4-microsoft-standard-WSL2", "fail on WSL"),
    ],
    ids=["windows", "rocm", "wsl"],
)
def test_segments_stay_fixed_where_others_are_not_supported(
    settings: list[str], monkeypatch: pytest.MonkeyPatch, place: tuple, value: object, reason: str
) -> None:
    monkeypatch.setattr(*place, value)
    assert reason in prepare_device_allocator()
    assert settings == ["expandable_segments:False,pinned_max_cached_size_mb:1"]


def test_a_driver_that_refuses_expandable_segments_gets_fixed_ones(
    settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "empty", failing(RuntimeError("CUDA driver error: operation not supported")))
    assert prepare_device_allocator() == "torch's default: the GPU's driver refuses expandable segments"
    assert settings[-1].startswith("expandable_segments:False")


def test_a_full_gpu_is_not_taken_for_a_driver_that_refuses(
    settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "empty", failing(torch.OutOfMemoryError("CUDA out of memory")))
    assert prepare_device_allocator() == "expandable segments"


def test_a_torch_without_the_setting_for_page_locked_memory_still_has_expandable_segments(
    settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = failing(ValueError("Unrecognized key"), at=lambda text: "pinned" in text)
    monkeypatch.setattr(torch._C, "_accelerator_setAllocatorSettings", unknown)
    assert prepare_device_allocator() == "expandable segments"


def test_a_torch_without_any_setting_keeps_its_default(settings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._C, "_accelerator_setAllocatorSettings")
    assert prepare_device_allocator().startswith("torch's default")


class Reached(Exception):
    pass


def test_it_is_set_before_a_model_is_loaded_to_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "prepare_device_allocator", failing(Reached()))
    monkeypatch.setattr(loader, "check_precision", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(Reached):
        loader.load_model(load_model_config("tiny"), load_profile("gpu-80gb"))


def test_it_is_set_before_a_language_model_is_loaded_to_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_model, "prepare_device_allocator", failing(Reached()))
    with pytest.raises(Reached):
        language_model.LanguageModel(RewriteConfig(), "cuda")


def test_torch_takes_the_settings() -> None:
    assert device_allocator.set_allocator(OURS)
