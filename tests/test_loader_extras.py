"""Additions to a checkpoint on loading: LoRAs, GGUF files, quantization; reports of a run; previews."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from gguf_files import write_gguf
from lora_files import make_lora
from PIL import Image

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.config import LoraConfig, RuntimeProfile, load_model_config, load_profile
from hunyuan_local.errors import ConfigError
from hunyuan_local.pipeline.loading.loader import load_model
from hunyuan_local.provenance import read_provenance
from hunyuan_local.schema import GenerationRequest, GenerationResult, Progress

CPU = load_profile("cpu")
TINY = load_model_config("tiny")
REQUEST = GenerationRequest(
    prompt="a red circle moving right on a black background", width=144, height=80, num_frames=5,
    num_inference_steps=2, seed=7,
)  # fmt: skip
WEIGHT = "single_transformer_blocks.2.proj_out.weight"


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> LoraConfig:
    file = tmp_path_factory.mktemp("lora") / "style.safetensors"
    make_lora(file)
    return LoraConfig(path=str(file), scale=0.5)


@pytest.fixture(scope="module")
def plain(starts_process: None, tiny: LocalBackend, tmp_path_factory: pytest.TempPathFactory) -> GenerationResult:
    """The video of ``small_request`` with nothing added."""
    return tiny.generate(REQUEST, GenerationContext(tmp_path_factory.mktemp("plain") / "a.mp4"))


def weight_of(model: object) -> torch.Tensor:
    return model.pipe.transformer.get_parameter(WEIGHT)


def make(folder: Path, **options: object) -> GenerationResult:
    return LocalBackend("tiny", CPU, **options).generate(REQUEST, GenerationContext(folder / "a.mp4"))


@pytest.mark.parametrize("offload", ["none", "group", "sequential"])
def test_a_lora_is_merged_whatever_the_offload(loads_model: None, lora: LoraConfig, offload: str) -> None:
    profile = CPU.model_copy(update={"offload": offload})
    model = load_model(TINY.model_copy(update={"lora": (lora,)}), profile)
    assert list(model.extra_files) == [lora.path]
    if offload == "none":
        assert not torch.equal(weight_of(model), weight_of(load_model(TINY, CPU)))


def test_a_lora_changes_the_video_and_its_hash_is_in_the_file(
    plain: GenerationResult, lora: LoraConfig, tmp_path: Path
) -> None:
    result = make(tmp_path, lora=[lora])
    assert result.provenance["frames_sha256"] != plain.provenance["frames_sha256"]
    digest = hashlib.sha256(Path(lora.path).read_bytes()).hexdigest()
    assert read_provenance(result.path).model.files == {lora.path: digest}


def test_a_lora_of_scale_0_changes_nothing(plain: GenerationResult, lora: LoraConfig, tmp_path: Path) -> None:
    result = make(tmp_path, lora=[LoraConfig(path=lora.path, scale=0)])
    assert result.provenance["frames_sha256"] == plain.provenance["frames_sha256"]


def test_models_with_and_without_a_lora_are_distinguished(lora: LoraConfig) -> None:
    assert TINY.model_copy(update={"lora": (lora,)}).identity == f"{TINY.identity}+{lora.path}=0.5"


def test_a_gguf_file_takes_the_transformers_place(starts_process: None, tiny: LocalBackend, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "t.gguf", tiny.load().pipe.transformer.state_dict(), "Q8_0")
    config = TINY.model_copy(update={"transformer_gguf": str(file)})
    result = LocalBackend(config, CPU).generate(REQUEST, GenerationContext(tmp_path / "a.mp4"))
    assert result.provenance["model"]["files"] == {str(file): hashlib.sha256(file.read_bytes()).hexdigest()}


@pytest.mark.parametrize("changes", [{"quantization": "int8"}, {"offload": "sequential"}])
def test_a_gguf_file_is_refused_where_it_cannot_be_used(tmp_path: Path, changes: dict) -> None:
    config = TINY.model_copy(update={"transformer_gguf": str(tmp_path / "t.gguf")})
    with pytest.raises(ConfigError, match="gguf"):
        load_model(config, CPU.model_copy(update=changes))


def test_a_precision_that_the_machine_lacks_is_refused_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hunyuan_local.pipeline.loading.loader.provide", pytest.fail)
    with pytest.raises(ConfigError, match=r"quantization='nf4': nf4 \(bitsandbytes\) needs a CUDA device"):
        load_model(TINY, CPU.model_copy(update={"quantization": "nf4"}))


@pytest.mark.parametrize("method", ["fp8", "fp8-weights", "int8", "int8-dynamic"])
def test_fewer_bits_take_less_memory(loads_model: None, method: str) -> None:
    def size(profile: RuntimeProfile) -> int:
        tensors = load_model(TINY, profile).pipe.transformer.state_dict().values()
        parts = [getattr(t, name) for t in tensors for name in getattr(t, "tensor_data_names", ["data"])]
        return sum(part.nbytes for part in parts)

    assert size(CPU.model_copy(update={"quantization": method})) < 0.7 * size(CPU)


def test_previews_are_named_by_the_progress_and_are_next_to_the_video(
    starts_process: None, tiny: LocalBackend, tmp_path: Path
) -> None:
    reported: list[Progress] = []
    context = GenerationContext(tmp_path / "a.mp4", on_progress=reported.append, preview_every=2)
    tiny.generate(REQUEST.replace(num_inference_steps=5), context)
    seen = {progress.step: progress.preview for progress in reported if progress.preview is not None}
    assert seen == dict.fromkeys([2, 4, 5], tmp_path / "a.mp4.preview.png")
    with Image.open(tmp_path / "a.mp4.preview.png") as picture:
        assert picture.width > picture.height


def test_without_asking_there_is_no_preview(plain: GenerationResult) -> None:
    assert [path.name for path in plain.path.parent.iterdir()] == ["a.mp4"]


def test_a_model_without_a_map_says_so(starts_process: None, tmp_path: Path) -> None:
    backend = LocalBackend(TINY.model_copy(update={"latent_preview": None}), CPU)
    result = backend.generate(REQUEST, GenerationContext(tmp_path / "a.mp4", preview_every=1))
    assert [note for note in result.notes if note.startswith("no previews: the config of tiny has no latent_preview")]


def test_previews_do_not_change_the_video(tiny: LocalBackend, plain: GenerationResult, tmp_path: Path) -> None:
    seen = tiny.generate(REQUEST, GenerationContext(tmp_path / "a.mp4", preview_every=1))
    assert seen.provenance["frames_sha256"] == plain.provenance["frames_sha256"]


def test_a_negative_interval_of_previews_is_refused() -> None:
    with pytest.raises(ConfigError, match="preview_every=-1"):
        GenerationContext(preview_every=-1)
