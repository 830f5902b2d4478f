"""``hunyuan-local doctor``: facts for a bug report, and problems with their remedies."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import rich_click as click
from rich.console import Console
from rich.table import Table

from ...config import GIB, cache_dir, is_offline, load_model_config, model_names, state_dir
from ...config.places import default_data_dir, temporary_root, why_no_temporary_files, why_not_writable
from ...errors import ConfigError, HunyuanLocalError
from ...schema import GenerationRequest

if TYPE_CHECKING:
    from ...pipeline.memory.device import CudaDevice

# Versions from constraints.txt of the libraries that affect the frames; a test keeps them equal.
TESTED = {
    "torch": "2.13.0",
    "diffusers": "0.42.1",
    "transformers": "5.23.0",
    "tokenizers": "0.23.3",
    "accelerate": "1.15.0",
    "imageio-ffmpeg": "0.8.1",
}
Verdict = Literal["ok", "warning", "wrong"]


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``remedy`` is empty if nothing is wrong."""

    what: str
    found: str
    verdict: Verdict = "ok"
    remedy: str = ""


@click.command(name="doctor")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def command(as_json: bool) -> None:
    """Check Python, libraries, GPUs, folders, weights, tokenizers and ffmpeg.

    Example: hunyuan-local doctor

    Each finding is ok, a warning or wrong, with its remedy. Exit code 1 if anything is wrong; warnings do not count.
    """
    findings = list(examine())
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        _print(findings)
    raise SystemExit(1 if any(finding.verdict == "wrong" for finding in findings) else 0)


def examine() -> Iterator[Finding]:
    """All findings, in order of dependency."""
    yield _python()
    for name, tested in TESTED.items():
        yield _library(name, tested)
    yield from _guarded("cuda", _devices())
    yield from _guarded("ffmpeg", _ffmpeg())
    yield from _guarded("hub cache", _disk())
    yield from _guarded("folders", _folders())
    for name in model_names():
        yield from _guarded(f"model {name}", _weights(name))


def _guarded(what: str, check: Iterator[Finding]) -> Iterator[Finding]:
    """Turn an exception in a check into a finding, so that the other checks still run."""
    try:
        yield from check
    except Exception as error:
        found = str(error) if isinstance(error, HunyuanLocalError) else f"{type(error).__name__}: {error}"
        yield Finding(what, found, "wrong", "see the message; if a library is broken, reinstall it")


def _python() -> Finding:
    return Finding("python", f"{'.'.join(map(str, sys.version_info[:3]))} on {sys.platform}")


def _library(name: str, tested: str) -> Finding:
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "not installed", "wrong", "pip install -c constraints.txt -e .")
    if found.split("+")[0] != tested:
        return Finding(name, found, "warning", f"the tested version is {tested}")
    return Finding(name, found)


def _devices() -> Iterator[Finding]:
    from ...backends.local.profile_choice import choose_profile
    from ...pipeline.memory.allocator import describe_allocator
    from ...pipeline.memory.device import cuda_devices, default_model, why_no_gpu

    for index, device in enumerate(cuda_devices()):
        yield _device(index, device)
    if reason := why_no_gpu():
        yield Finding("cuda", reason, "warning", "only the built-in model tiny is usable; the 13 B model needs a GPU")
    yield Finding("allocator", describe_allocator())
    model = load_model_config(default_model())
    try:
        reason = choose_profile(GenerationRequest(prompt="any"), model).reason
        yield Finding("profile", f"{model.name} at its default size: {reason}")
    except HunyuanLocalError as error:
        yield Finding("profile", str(error), "warning", "see 'hunyuan-local plan', or use --model tiny")


def _device(index: int, device: CudaDevice) -> Finding:
    """A GPU, and whether the plan knows how fast it is."""
    from ...planner.cards import GUESS, recognise

    found = f"{device.name}, {device.memory_bytes / GIB:.1f} GiB"
    if device.rocm is not None:
        found += f", ROCm {device.rocm}; this package has not been tried on AMD's GPUs"
    spec = recognise(device.name, device.memory_bytes, device.capability, "amd" if device.rocm else "nvidia")
    if spec is not None and spec.stands_in is not None:
        found += (
            f"; not in the list of known GPUs: times are a guess, {spec.stands_in} times {GUESS[0]:g} to {GUESS[1]:g}"
        )
    return Finding(f"cuda:{index}", found)


def _ffmpeg() -> Iterator[Finding]:
    import imageio_ffmpeg

    yield Finding("ffmpeg", f"{imageio_ffmpeg.get_ffmpeg_version()} at {imageio_ffmpeg.get_ffmpeg_exe()}")


def _disk() -> Iterator[Finding]:
    from ...weights.hub_private import cache_folder, home_folder

    folder = next(p for p in (cache_folder(), home_folder(), Path("/")) if p.is_dir())
    free = shutil.disk_usage(folder).free / 1e9
    offline = ", HF_HUB_OFFLINE is set" if is_offline() else ""
    found = f"{cache_folder()}, {free:.0f} GB free{offline}"
    unknown = str(cache_folder()).startswith("~")
    problem = "the home folder is unknown" if unknown else why_not_writable(cache_folder())
    if problem:
        yield Finding("hub cache", f"{found}: {problem}", "warning", "set HF_HOME to a writable folder")
        return
    yield Finding("hub cache", found)


def _folders() -> Iterator[Finding]:
    """Folders of this user: state, cache, data and temporary files."""
    usual = {
        "state": (state_dir, "HUNYUAN_LOCAL_STATE_DIR", "accepted licences and open hosted tasks cannot be saved"),
        "cache": (cache_dir, "HUNYUAN_LOCAL_CACHE_DIR", "encoded prompts are not cached"),
        "data": (default_data_dir, "HUNYUAN_LOCAL_DATA_DIR", "'serve' needs --data-dir"),
    }
    for name, (find, variable, effect) in usual.items():
        try:
            folder = find()
        except ConfigError as error:
            yield Finding(name, str(error), "warning", effect)
            continue
        problem = why_not_writable(folder)
        remedy = f"{effect}; set {variable} to a writable folder" if problem else ""
        yield Finding(name, problem or str(folder), "warning" if problem else "ok", remedy)
    problem = why_no_temporary_files()
    remedy = "needed by 'serve' with its page, several GPUs, smoke and replay" if problem else ""
    yield Finding("temporary", problem or str(temporary_root()), "warning" if problem else "ok", remedy)


def _weights(name: str) -> Iterator[Finding]:
    """Whether a model's weights are complete on this machine and its tokenizer encodes prompts correctly."""
    from ...pipeline.text.tokenizers import check_crop_start, load_llama_tokenizer
    from ...weights.inventory import describe

    config = load_model_config(name)
    model = describe(config)
    folder = model.folder
    if folder is None or model.problem:
        # A model that was never downloaded is not an error.
        yield Finding(f"model {name}", model.problem, "ok" if folder is None else "wrong")
        return
    yield Finding(f"model {name}", str(folder))
    tokenizer = load_llama_tokenizer(folder / "tokenizer", config.prompt_template)
    yield Finding(f"tokenizer {name}", "encodes prompts as its tokenizer.json specifies")
    for note in check_crop_start(tokenizer, config.prompt_template):
        yield Finding(f"template {name}", note, "warning")


def _print(findings: list[Finding]) -> None:
    marks = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "wrong": "[red]wrong[/]"}
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        text = finding.found + (f" -> {finding.remedy}" if finding.remedy else "")
        table.add_row(marks[finding.verdict], finding.what, text)
    Console(highlight=False).print(table)
