"""The built wheel without extras and with each extra alone: what works, and which errors name the missing extra.

A process for each set, in an environment that has what pip would have installed; see ``site_of_extras.py``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file
from site_of_extras import Answer, make_site, required, unpack

from hunyuan_local.cli.main import group
from hunyuan_local.config.places import configs_dir
from hunyuan_local.errors import ConfigError

pytestmark = pytest.mark.usefixtures("starts_process")

NONE = ""
# The modules that only each extra installs. The extra safety installs none: see its test.
MODULES = {
    "server": ("fastapi", "itsdangerous", "uvicorn", "prometheus_client", "python_multipart"),
    "ui": ("gradio",),
    "bench": ("matplotlib", "scipy"),
    "ray": ("ray",),
    "lora": ("peft",),
    "quant": ("bitsandbytes", "gguf", "torchao"),
}
SETS = {NONE: (), "ui": ("server", "ui")} | {extra: (extra,) for extra in MODULES if extra != "ui"}
# Where torch is loaded in any case; steps that are refused only after that run in no other environment.
WITH_TORCH = (NONE, "lora", "quant")


@dataclass(frozen=True)
class Command:
    """A step that needs extras, in the order in which it requires them."""

    needs: tuple[str, ...]
    step: tuple[str, ...]
    after_torch: bool = False


def command(*arguments: str, needs: tuple[str, ...]) -> Command:
    return Command(needs, ("command", *arguments))


PROMPT = "a red circle moving right on a black background"
# Its weights do not exist here: an error about them shows that a step was not refused early enough.
FAR = ("--model", "hunyuan-video")
BENCH = ("bench", "--backend", "local", *FAR, "--output-dir", "bench")
TINY = ("--model", "tiny", "--num-frames", "5", "--num-inference-steps", "2", "--seed", "7", "--json")
SERVER = ("--model", "tiny", "--profile", "cpu", "--port", "0", "--data-dir", "data", "--min-free-gib", "0")
IN_RAY = ("--executor", "ray", "--num-replicas", "1", "--ray-address", "127.0.0.1:1")
INT8 = ("--profile", "{files}/int8.yaml")
LORA = ("--lora", "{files}/style.safetensors=0.5")
COMMANDS = {
    "serve": command("serve", *SERVER, "--workers", "0", needs=("server",)),
    "serve with its page": command("serve", "--page", *SERVER, "--workers", "0", needs=("ui",)),
    "serve in Ray": command("serve", *SERVER, *IN_RAY, needs=("server", "ray")),
    "serve on int8": command("serve", *SERVER, *FAR, *INT8, needs=("server", "quant")),
    "ui": command("ui", "--no-browser", "--port", "0", needs=("ui",)),
    "bench": command(*BENCH, needs=("bench",)),
    "bench on int8": command(*BENCH, *INT8, needs=("bench", "quant")),
    "bench compare": command("bench", "compare", "a/result.json", "b/result.json", needs=("bench",)),
    "batch in Ray": command("batch", "{files}/prompts.txt", *FAR, "-o", "videos", *IN_RAY, needs=("ray",)),
    "batch on int8": command("batch", "{files}/prompts.txt", *FAR, *INT8, "-o", "videos", needs=("quant",)),
    "int8": command("generate", PROMPT, *FAR, *INT8, needs=("quant",)),
    "nf4": Command(("quant",), ("quantise", "nf4"), after_torch=True),
    "GGUF": command("generate", PROMPT, "--model", "{files}/gguf.yaml", "--profile", "cpu", needs=("quant",)),
    "LoRA on int8": command("generate", PROMPT, *FAR, *INT8, *LORA, needs=("quant", "lora")),
}
# Additional steps in an environment, at the end.
STEPS = {
    NONE: {
        "video": ("command", "generate", PROMPT, *TINY, "--output", "x.mp4"),
        "LoRA": ("command", "generate", PROMPT, *TINY, *LORA, "--output", "lora.mp4"),
        "classifier": ("classifier", "{files}/classifier"),
        "safety": (
            "command", "generate", PROMPT, *TINY, "--output", "checked.mp4", "--safety", "flag",
            "--safety-model", "{files}/classifier", "--safety-label", "red", "--safety-threshold", "0",
        ),
        "modules": ("modules", "hunyuan_local"),
        **{f"{name} --help": ("command", name, "--help") for name in group.commands},
    },
    "server": {
        "serve": ("visit", "/healthz", *COMMANDS["serve"].step[1:]),
        "modules": ("modules", "hunyuan_local.server"),
    },
    "ui": {
        "ui": ("visit", "/ui/", "ui", "--no-browser", *SERVER, "--workers", "0"),
        "serve with its page": ("visit", "/ui/", *COMMANDS["serve with its page"].step[1:]),
        "modules": ("modules", "hunyuan_local.ui"),
    },
    "bench": {
        "report": ("report", "a"),
        "compare": ("command", "bench", "compare", "a/result.json", "a/result.json"),
    },
    "ray": {"ray": ("ray",), "batch": ("command", "batch", "{files}/prompts.txt", *TINY[:2], "-o", "videos", *IN_RAY)},
    "lora": {"adapter": ("adapter",)},
    "quant": {
        "int8": ("command", "generate", PROMPT, *TINY, *INT8, "--output", "int8.mp4"),
        "nf4": ("quantise", "nf4"),
        "GGUF": COMMANDS["GGUF"].step,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """An environment after its process: the outcome of each step, and the folder in which it ran."""

    answers: dict[str, Answer]
    folder: Path


Runs = Callable[[str], Run]


def lacking(extra: str) -> dict[str, str]:
    """The commands for which an environment lacks an extra, with the extra's name."""
    missing = {
        name: [need for need in command.needs if need not in SETS[extra]]
        for name, command in COMMANDS.items()
        if extra in WITH_TORCH or not command.after_torch
    }
    return {name: needs[0] for name, needs in missing.items() if len(needs) == 1}


def steps_of(extra: str) -> dict[str, tuple[str, ...]]:
    """All steps in an environment, in this order, because torch stays loaded."""
    looks = {
        "found": ("found", *(module for modules in MODULES.values() for module in modules)),
        "packages": ("packages",),
    }
    refused = sorted(lacking(extra), key=lambda name: COMMANDS[name].after_torch)
    return (
        looks
        | {name: COMMANDS[name].step for name in refused}
        | {f"own {name}": step for name, step in STEPS[extra].items()}
    )


@pytest.fixture(scope="module")
def package(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Distribution:
    """The wheel, unpacked."""
    return unpack(wheel, tmp_path_factory.mktemp("unpacked"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands' input files."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "prompts.txt").write_text(f"{PROMPT}\n")
    (folder / "no.gguf").write_text("not what it is called")
    profile = yaml.safe_load((configs_dir() / "profiles" / "cpu.yaml").read_text())
    (folder / "int8.yaml").write_text(yaml.safe_dump(profile | {"name": "int8", "quantization": "int8"}))
    model = yaml.safe_load((configs_dir() / "models" / "tiny.yaml").read_text())
    (folder / "gguf.yaml").write_text(yaml.safe_dump(model | {"transformer_gguf": str(folder / "no.gguf")}))
    layer = "transformer.single_transformer_blocks.2.proj_out.lora_"
    shapes = {"A": (2, 640), "B": (128, 2)}
    factors = {f"{layer}{part}.weight": np.full(shape, 0.01, np.float32) for part, shape in shapes.items()}
    save_file(factors, folder / "style.safetensors")
    return folder


@pytest.fixture(scope="module")
def run(package: Distribution, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The outcomes of all steps in the environment of an extra, or of none."""

    @cache
    def made(extra: str) -> Run:
        home = tmp_path_factory.mktemp(extra or "none")
        folder = home / "work"
        folder.mkdir()
        site = make_site(home / "site", package, extra)
        steps = steps_of(extra)
        words = [[word.replace("{files}", str(files)) for word in step] for step in steps.values()]
        places = {"HF_HOME": "hub", "HUNYUAN_LOCAL_STATE_DIR": "state", "HUNYUAN_LOCAL_DATA_DIR": "data"}
        variables = {name: str(home / place) for name, place in places.items()} | {"HF_HUB_OFFLINE": "1"}
        return Run(dict(zip(steps, site.run(words, folder, **variables), strict=True)), folder)

    return made


def own(run: Run, name: str) -> Answer:
    """The outcome of a step that must succeed in this environment."""
    answer = run.answers[f"own {name}"]
    assert answer.code == 0, answer.stderr
    return answer


def own_json(run: Run, name: str) -> dict[str, Any]:
    """The last line that such a step printed."""
    return json.loads(own(run, name).stdout.splitlines()[-1])


@pytest.mark.parametrize("extra", SETS)
def test_an_environment_has_the_libraries_of_its_extras_and_of_no_other(run: Runs, extra: str) -> None:
    expected = {module for one in SETS[extra] for module in MODULES[one]}
    assert set(run(extra).answers["found"].stdout.split()) == expected


@pytest.mark.parametrize("extra", SETS)
def test_an_environment_has_the_packages_that_are_required_and_no_other(
    run: Runs, package: Distribution, extra: str
) -> None:
    assert set(run(extra).answers["packages"].stdout.split()) == required(package, extra) | {"hunyuan-local"}


@pytest.mark.parametrize(("extra", "name"), [(extra, name) for extra in SETS for name in lacking(extra)])
def test_what_lacks_an_extra_names_it(run: Runs, extra: str, name: str) -> None:
    answer, missing = run(extra).answers[name], lacking(extra)[name]
    said = answer.stderr.rstrip().rpartition("\n")[2]
    assert said.startswith("error: ") and f"pip install 'hunyuan-local[{missing}]'" in said, answer.stderr
    assert answer.stderr.count("hunyuan-local[") == 1 and "Traceback" not in answer.stderr
    assert (answer.code, answer.stdout) == (ConfigError.exit_code, "")


@pytest.mark.parametrize(
    ("extra", "name"), [(e, name) for e in SETS for name in lacking(e) if not COMMANDS[name].after_torch]
)
def test_it_does_so_before_torch_is_loaded(run: Runs, extra: str, name: str) -> None:
    assert not run(extra).answers[name].loads_torch


def test_without_extras_a_video_is_made_without_the_network(run: Runs) -> None:
    made = run(NONE)
    answer = own_json(made, "video")
    assert answer["model"] == "tiny"
    assert (made.folder / answer["path"]).resolve() == (made.folder / "x.mp4").resolve()
    assert (made.folder / "x.mp4").stat().st_size > 0


def test_without_extras_a_plain_lora_is_merged(run: Runs) -> None:
    with_lora, plain = (own_json(run(NONE), name) for name in ("LoRA", "video"))
    assert with_lora["provenance"]["frames_sha256"] != plain["provenance"]["frames_sha256"]


def test_the_extra_safety_brings_nothing_that_diffusers_does_not(package: Distribution) -> None:
    assert required(package, "safety") == required(package)


def test_without_extras_frames_are_checked(run: Runs) -> None:
    own(run(NONE), "classifier")
    assert own_json(run(NONE), "safety")["safety"]["flagged"]


@pytest.mark.parametrize("name", group.commands)
def test_without_extras_every_command_has_its_help(run: Runs, name: str) -> None:
    assert "Usage" in own(run(NONE), f"{name} --help").stdout


def test_without_extras_only_the_server_and_its_page_cannot_be_imported(run: Runs) -> None:
    lines = own(run(NONE), "modules").stdout.splitlines()
    assert lines and {tuple(line.split()[0].split(".")[:2]) for line in lines} == {
        ("hunyuan_local", "server"), ("hunyuan_local", "ui"),
        ("hunyuan_local", "pipeline"),  # the Triton kernels; Triton comes with torch for CUDA
    }  # fmt: skip


def test_what_is_refused_leaves_nothing_behind(run: Runs) -> None:
    assert sorted(path.name for path in run(NONE).folder.iterdir()) == ["checked.mp4", "lora.mp4", "x.mp4"]


def test_with_the_extra_server_alone_a_server_answers(run: Runs) -> None:
    assert own(run("server"), "serve").stdout.startswith("200 ")


@pytest.mark.parametrize("extra", ["server", "ui"])
def test_with_its_extra_alone_every_module_can_be_imported(run: Runs, extra: str) -> None:
    assert own(run(extra), "modules").stdout == ""


@pytest.mark.parametrize("name", ["ui", "serve with its page"])
def test_with_the_extra_ui_alone_the_page_is_there(run: Runs, name: str) -> None:
    answer = own(run("ui"), name)
    assert answer.stdout.startswith("200 ") and "gradio" in answer.stdout


def test_with_the_extra_bench_alone_a_report_has_its_plots(run: Runs) -> None:
    report = Path(own(run("bench"), "report").stdout.strip())
    assert list((run("bench").folder / report).parent.glob("plots/*.png"))


def test_with_the_extra_bench_alone_benches_are_compared(run: Runs) -> None:
    assert own_json(run("bench"), "compare")


def test_with_the_extra_ray_alone_a_batch_looks_for_its_cluster(run: Runs) -> None:
    assert own(run("ray"), "ray").stdout == "ray\n"
    answer = run("ray").answers["own batch"]
    assert answer.code == ConfigError.exit_code
    assert "ray_address='127.0.0.1:1': no answer" in answer.stderr


def test_with_the_extra_lora_alone_peft_takes_what_the_loader_gives_it(run: Runs) -> None:
    assert own(run("lora"), "adapter").stdout.startswith("peft.")


def test_with_the_extra_quant_alone_a_video_is_made_with_int8_weights(run: Runs) -> None:
    assert own_json(run("quant"), "int8")["provenance"]["runtime"]["quantization"] == "int8"


def test_with_the_extra_quant_alone_its_other_libraries_are_found(run: Runs) -> None:
    own(run("quant"), "nf4")
    assert "not a GGUF file" in run("quant").answers["own GGUF"].stderr
