"""Runs steps one after another in an environment of ``site_of_extras.py``, never in the tests' environment.

Standard input is a JSON list of steps, each a list of words: a function of this file, and what it is given. The last
line of standard output is a JSON list with what became of each.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import io
import json
import os
import pkgutil
import re
import signal
import sys
import threading
import traceback
import urllib.request
from pathlib import Path

TESTS = Path(__file__).resolve().parent


def command(*arguments: str) -> None:
    """Run ``hunyuan-local`` with these arguments."""
    from hunyuan_local.cli.main import main

    sys.argv = ["hunyuan-local", *arguments]
    main()


def visit(path: str, *arguments: str) -> None:
    """Run a command that serves, fetch this path from its server, and end it with SIGTERM."""
    ended = threading.Event()
    visitor = threading.Thread(target=_fetch, args=(path, sys.stdout, sys.stderr, ended))
    visitor.start()
    try:
        command(*arguments)
    finally:
        ended.set()
        visitor.join()


def _fetch(path: str, stdout: io.StringIO, stderr: io.StringIO, ended: threading.Event) -> None:
    while (found := re.search(r"listening on (http://\S+)", stderr.getvalue())) is None:
        if ended.wait(0.02):
            return
    try:
        with urllib.request.urlopen(found[1] + path, timeout=30) as answer:
            stdout.write(f"{answer.status} {answer.read().decode()}\n")
    except OSError as error:
        stderr.write(f"{path}: {error}\n")
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


def found(*names: str) -> None:
    """Print which of these modules are installed."""
    print(*(name for name in names if importlib.util.find_spec(name) is not None))


def packages() -> None:
    """Print the names of all packages that are installed, as the site of PyPI spells them in addresses."""
    print(*sorted(re.sub(r"[-_.]+", "-", found.name).lower() for found in importlib.metadata.distributions()))


def modules(name: str) -> None:
    """Import a package of ours with all its modules; print those that fail, and which library each one misses."""
    package = importlib.import_module(name)
    for found in pkgutil.walk_packages(package.__path__, f"{name}.", onerror=lambda name: None):
        try:
            importlib.import_module(found.name)
        except ModuleNotFoundError as error:
            print(found.name, error.name)


def quantise(method: str) -> None:
    """Check whether the newest kind of GPU may hold its weights in this precision."""
    from hunyuan_local.pipeline.loading.quantization import require

    require(method, "cuda", (10, 0))


def report(folder: str) -> None:
    """Write the report of a made-up bench."""
    sys.path.append(str(TESTS / "bench"))
    from made_results import made_result, made_run

    from hunyuan_local.bench.report.report import write_report

    runs = [made_run(total_s=10.0 + repeat, steps=steps, repeat=repeat) for steps in (2, 10) for repeat in range(2)]
    result = made_result(runs)
    print(write_report(result, Path(folder)))
    (Path(folder) / "result.json").write_text(result.model_dump_json())


def classifier(folder: str) -> None:
    """Write an untrained classifier of red and blue images."""
    sys.path.append(str(TESTS))
    from colour_classifier import save, small_model

    save(small_model(), Path(folder))


def adapter() -> None:
    """Let peft add a LoRA to a layer of a small transformer, as the loader does."""
    import torch
    from diffusers import HunyuanVideoTransformer3DModel

    import hunyuan_local.pipeline.loading.loader  # noqa: F401

    transformer = HunyuanVideoTransformer3DModel(
        num_attention_heads=2, attention_head_dim=8, num_layers=1, num_single_layers=1, num_refiner_layers=1,
        text_embed_dim=8, pooled_projection_dim=8, rope_axes_dim=(2, 2, 4),
    )  # fmt: skip
    state = {f"proj_out.lora_{part}.weight": torch.ones(shape) for part, shape in (("A", (1, 16)), ("B", (64, 1)))}
    transformer.load_lora_adapter(state, adapter_name="lora_0", prefix=None)
    print(type(transformer.proj_out).__module__)


def ray() -> None:
    """Import Ray as the pool does, and the program that checks for a cluster."""
    import ray.scripts.scripts  # noqa: F401

    from hunyuan_local.jobs.ray_workers.cluster import import_ray

    print(import_ray().__name__)


def _take(step: list[str]) -> dict[str, object]:
    """The outcome of a step, as the command line reports it; with a traceback for errors that it does not handle."""
    from hunyuan_local.errors import HunyuanLocalError

    stdout, stderr, had_torch = io.StringIO(), io.StringIO(), "torch" in sys.modules
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            globals()[step[0]](*step[1:])
            code = 0
        except SystemExit as end:
            code = end.code
        except HunyuanLocalError as error:
            print(f"error: {error}", file=sys.stderr)
            code = error.exit_code
        except BaseException:
            traceback.print_exc()
            code = 1
    loads_torch = "torch" in sys.modules and not had_torch
    return {"code": code, "stdout": stdout.getvalue(), "stderr": stderr.getvalue(), "loads_torch": loads_torch}


if __name__ == "__main__":
    os.environ["COLUMNS"] = "80"
    print(json.dumps([_take(step) for step in json.load(sys.stdin)]))
