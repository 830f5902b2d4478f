"""``--lora``, ``--cache``, ``--profile`` and ``--preview-every``: parsing and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import rich_click as click
from lora_files import make_lora

from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.cli import main as cli
from hunyuan_local.cli.shared.options import Lora
from hunyuan_local.config import LoraConfig
from hunyuan_local.errors import HunyuanLocalError

PROMPT = "a red circle moving right on a black background"
SMALL = ["--size", "144x80", "--num-frames", "5", "--num-inference-steps", "2", "--seed", "7", "--model", "tiny"]


def run(*arguments: str) -> None:
    cli.group.main(["generate", PROMPT, *SMALL, *arguments], standalone_mode=False)


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("style.safetensors", LoraConfig(path="style.safetensors")),
        ("style.safetensors=0.8", LoraConfig(path="style.safetensors", scale=0.8)),
        ("owner/name/file.safetensors=-1", LoraConfig(path="owner/name/file.safetensors", scale=-1)),
    ],
)
def test_a_lora_is_a_file_and_a_scale(text: str, config: LoraConfig) -> None:
    assert Lora().convert(text, None, None) == config


@pytest.mark.parametrize("text", ["style.safetensors=much", "style.safetensors=11"])
def test_a_scale_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"the scale after = must be a number from -10 to 10"):
        Lora().convert(text, None, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cache", "fast"], "cache='fast': not known; use one of first-block-aggressive"),
        (["--profile", "fast"], "profile='fast': not known; use one of cpu"),
        (["--profile", "none+nf4"], "quantization='nf4': .* needs a CUDA device"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(HunyuanLocalError, match=message):
        run(*arguments, "--output", str(tmp_path / "a.mp4"))


@pytest.mark.usefixtures("starts_process")
def test_lora_cache_profile_and_previews_go_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_lora(tmp_path / "style.safetensors")
    output = tmp_path / "a.mp4"
    run(
        "--lora", f"{tmp_path / 'style.safetensors'}=0.5", "--cache", "taylorseer-conservative", "--profile",
        "group+tiling", "--preview-every", "2", "--output", str(output), "--json",
    )  # fmt: skip
    reported = capsys.readouterr()
    found = json.loads(reported.out.splitlines()[-1])["provenance"]
    assert (found["runtime"]["cache"]["kind"], found["runtime"]["offload"]) == ("taylorseer", "group")
    assert list(found["model"]["files"]) == [str(tmp_path / "style.safetensors")]
    assert (tmp_path / "a.mp4.preview.png").is_file() and "a.mp4.preview.png" in reported.err


@pytest.mark.usefixtures("loads_model")
def test_a_lora_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HunyuanLocalError, match=r"lora='not-there.safetensors': no such file"):
        run("--lora", "not-there.safetensors", "--output", str(tmp_path / "a.mp4"))


def test_a_hosted_backend_takes_no_lora(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HunyuanLocalError, match="lora: not an option of the backend novita"):
        cli.group.main(
            ["generate", PROMPT, "--backend", "novita", "--api-key", "k", "--lora", "a.safetensors"],
            standalone_mode=False,
        )


@pytest.mark.usefixtures("loads_model")
def test_a_cache_of_the_user_takes_the_place_of_the_profiles() -> None:
    backend = LocalBackend("tiny", "cpu", cache="first-block-aggressive")
    assert backend.load().profile.cache.threshold == 0.3  # from the cache's config for tiny
