"""Loading: folders, the Hub's cache without a network, and errors for broken checkpoints."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from diffusers import HunyuanVideoTransformer3DModel

from hunyuan_local.config import ModelConfig, load_model_config, load_profile
from hunyuan_local.errors import ConfigError, ModelLoadError
from hunyuan_local.pipeline.loading.loader import load_model
from hunyuan_local.pipeline.text.tokenizers import check_crop_start
from hunyuan_local.provenance import weights_identity
from hunyuan_local.weights.files import missing_files

CPU = load_profile("cpu")
TINY = load_model_config("tiny")
loads_model = pytest.mark.usefixtures("loads_model")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY.source, tmp_path / "checkpoint"))


def at(folder: Path | str, **changes: object) -> ModelConfig:
    return TINY.model_copy(update={"model_id": str(folder)} | changes)


@loads_model
def test_all_seven_components_are_of_the_13b_classes() -> None:
    model = load_model(TINY, CPU)
    model.prompts.load()
    components = {name: type(part).__name__ for name, part in model.pipe.components.items()}
    tokenizer = components.pop("tokenizer")
    assert tokenizer != "LlamaTokenizer"
    assert components == {
        "vae": "AutoencoderKLHunyuanVideo",
        "text_encoder": "LlamaModel",
        "text_encoder_2": "CLIPTextModel",
        "tokenizer_2": "CLIPTokenizer",
        "transformer": "HunyuanVideoTransformer3DModel",
        "scheduler": "FlowMatchEulerDiscreteScheduler",
    }


@loads_model
def test_the_precision_is_set_a_component() -> None:
    dtypes = CPU.dtypes.model_copy(update={"transformer": "bfloat16"})
    pipe = load_model(TINY, CPU.model_copy(update={"dtypes": dtypes})).pipe
    assert (str(pipe.transformer.dtype), str(pipe.vae.dtype)) == ("torch.bfloat16", "torch.float32")


@loads_model
def test_tiling_is_the_profiles_choice() -> None:
    assert load_model(TINY, CPU.model_copy(update={"vae_tiling": True})).pipe.vae.use_tiling


@loads_model
def test_a_folder_elsewhere_loads_the_same_weights(checkpoint: Path) -> None:
    assert weights_identity(checkpoint) == weights_identity(Path(TINY.source))
    assert load_model(at(checkpoint), CPU).folder == checkpoint


def test_a_missing_weights_file_is_an_error_with_a_remedy(checkpoint: Path) -> None:
    next((checkpoint / "vae").glob("*.safetensors")).unlink()
    with pytest.raises(ModelLoadError, match=r"vae/\*\.safetensors; fetch the checkpoint again"):
        load_model(at(checkpoint), CPU)


@loads_model
def test_a_truncated_weights_file_is_an_error(checkpoint: Path) -> None:
    file = next((checkpoint / "transformer").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ModelLoadError, match="cannot be loaded"):
        load_model(at(checkpoint), CPU)


@loads_model
def test_weights_as_pickle_are_not_read(checkpoint: Path) -> None:
    file = next((checkpoint / "transformer").glob("*.safetensors"))
    file.rename(file.with_suffix(".bin"))
    with pytest.raises(ModelLoadError):
        load_model(at(checkpoint), CPU)


@pytest.mark.usefixtures("loads_model")
@pytest.mark.parametrize("file", ["tokenizer/tokenizer.json", "model_index.json", "vae/config.json"])
def test_a_damaged_file_is_a_loading_error(checkpoint: Path, file: str) -> None:
    (checkpoint / file).write_text("{ damaged")
    with pytest.raises(ModelLoadError, match="damaged"):
        load_model(at(checkpoint), CPU)


def test_a_missing_shard_is_named(checkpoint: Path) -> None:
    weights = next((checkpoint / "vae").glob("*.safetensors"))
    weights.with_name(f"{weights.name}.index.json").write_text('{"weight_map": {"a": "one.safetensors"}}')
    assert missing_files(checkpoint) == ["vae/one.safetensors"]


def test_a_damaged_shard_index_is_a_loading_error(checkpoint: Path) -> None:
    (checkpoint / "vae" / "model.safetensors.index.json").write_text("{ damaged")
    with pytest.raises(ModelLoadError, match="damaged"):
        load_model(at(checkpoint), CPU)


def test_the_shipped_checkpoint_is_complete() -> None:
    assert missing_files(Path(TINY.source)) == []


@loads_model
def test_a_crop_start_that_does_not_fit_is_noted() -> None:
    template = TINY.prompt_template.model_copy(update={"crop_start": 95})
    tokenizer = load_model(TINY, CPU).pipe.tokenizer
    assert "14 tokens before the prompt" in check_crop_start(tokenizer, template)[0]


def test_offline_without_a_cached_copy_names_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelLoadError, match="HF_HUB_OFFLINE is set"):
        load_model(at("hunyuan-local-tests/not-there"), CPU)


@loads_model
def test_a_cached_snapshot_loads_offline(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--someone--tiny"
    shutil.copytree(checkpoint, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    model = load_model(at("someone/tiny"), CPU)
    assert weights_identity(model.folder) == f"commit:{commit}"


def test_a_cuda_profile_without_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="needs a CUDA device"):
        load_model(TINY, load_profile("gpu-80gb"))


# Each precision runs in a separate process, because a peak never falls; forked, because imports are slow.
READ_ONE_COMPONENT = """
import json, os, resource, sys
from pathlib import Path
from hunyuan_local.config import load_model_config, load_profile
from hunyuan_local.pipeline.families.hunyuan_video import HunyuanVideo
from hunyuan_local.pipeline.loading import loader
from hunyuan_local.pipeline.memory.placement import Placement

profile = load_profile("cpu")
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
for dtype in sys.argv[2:]:
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
        continue
    profile = profile.model_copy(update={"dtypes": profile.dtypes.model_copy(update={"transformer": dtype})})
    placement, folder = Placement(profile), Path(sys.argv[1])
    module = loader._read("transformer", load_model_config("tiny"), folder, HunyuanVideo(), profile, placement)
    weights = sum(parameter.nbytes for parameter in module.parameters())
    print(json.dumps({dtype: {"grown": peak() - before, "weights": weights}}), flush=True)
    os._exit(0)
"""
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Reading:
    """Bytes by which the process grew, of the weights, and of the largest shard."""

    grown: int
    weights: int
    shard: int


@pytest.fixture(scope="module")
def readings(starts_process: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reading]:
    """Memory needed to read a transformer of 139 MiB in shards, by precision."""
    config = dict(HunyuanVideoTransformer3DModel.load_config(TINY.folder / "transformer"))
    larger = config | {"num_layers": 8, "num_single_layers": 16, "num_attention_heads": 8}
    folder = tmp_path_factory.mktemp("sharded")
    HunyuanVideoTransformer3DModel.from_config(larger).save_pretrained(folder / "transformer", max_shard_size="40MB")
    shards = [path.stat().st_size for path in (folder / "transformer").glob("*.safetensors")]
    assert len(shards) > 3
    command = [sys.executable, "-c", READ_ONE_COMPONENT, str(folder), *PRECISIONS]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {name: Reading(**found, shard=max(shards)) for line in lines for name, found in json.loads(line).items()}


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_loading_takes_no_more_memory_than_the_weights_and_a_shard(readings: dict[str, Reading], dtype: str) -> None:
    assert readings[dtype].grown < readings[dtype].weights + readings[dtype].shard
