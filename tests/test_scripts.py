"""The shell scripts: what they install and when, and what they pass on. Nothing is installed here.

Stubs take the places of Python, node, npm and a browser in a copy of the scripts: they make pretended environments
and write down what they were asked for.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = ("-m ruff", "-m mypy", "-m sphinx", "-m pytest")  # what .ci/run calls
COMMANDS = [".ci/run", "scripts/check", "scripts/demo", "scripts/docs", "scripts/test"]

pytestmark = [
    pytest.mark.skipif(shutil.which("bash") is None, reason="the scripts are for bash"),
    pytest.mark.usefixtures("starts_process"),
]

# STUB_VERSION is the Python version that it reports, STUB_FAIL a word that makes a call fail.
STUB = """#!/usr/bin/env bash
[[ $1 == -c ]] && { echo "${STUB_VERSION:-3.11}"; exit; }
[[ $1 == - ]] && exec "$STUB_PYTHON" -
threads=
[[ $2 == pytest && -n ${OMP_NUM_THREADS:-} ]] && threads=" ($OMP_NUM_THREADS thread)"
echo "$*$threads" >>"$STUB_LOG"
[[ -n ${STUB_FAIL:-} && $* == *"$STUB_FAIL"* ]] && { echo "stub failed" >&2; exit 1; }
if [[ $2 == venv ]]; then
    target=${!#}
    mkdir -p "$target/bin"
    touch "$target/pyvenv.cfg"
    cp "$0" "$target/bin/python"
    printf '#!/usr/bin/env bash\\nprintf "%%s\\\\n" "$@" >"$STUB_LOG.generate"\\n' >"$target/bin/hunyuan-local"
    chmod +x "$target/bin/hunyuan-local"
fi
exit 0
"""

# STUB_NODE is the version that node reports, or "missing".
NODE_STUB = """#!/usr/bin/env bash
[[ ${STUB_NODE:-} == missing ]] && exit 127
echo "${STUB_NODE:-v20.1.0}"
"""
NPM_STUB = """#!/usr/bin/env bash
echo "npm $*" >>"$STUB_LOG"
[[ ${STUB_FAIL:-} != npm ]]
"""
# STUB_CORES is the number of cores; like the real nproc, it respects the number of threads.
NPROC_STUB = """#!/usr/bin/env bash
echo "${OMP_NUM_THREADS:-${STUB_CORES:-2}}"
"""
SKIPPED = "the tests with the JavaScript clients are skipped"


class Checkout:
    """A copy of the scripts with stubs for ``python3``, ``node``, ``npm``, ``nproc`` and ``chromium``."""

    def __init__(self, folder: Path):
        self.root = folder / "a checkout"
        self.venv = folder / "the venv"
        self.elsewhere = folder / "elsewhere"
        self.elsewhere.mkdir()
        self.log = folder / "log"
        for name in (*COMMANDS, "scripts/environment"):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.root / name)
        for name in ("pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.root / name)
        for name in ("tests/clients/node", "tests/clients/wavespeed-1"):
            shutil.copytree(ROOT / name, self.root / name)
        self.programs = folder / "bin"
        self.programs.mkdir()
        stubs = {"python3": STUB, "node": NODE_STUB, "npm": NPM_STUB, "nproc": NPROC_STUB, "chromium": "#!/bin/sh\n"}
        for name, text in stubs.items():
            (self.programs / name).write_text(text)
            (self.programs / name).chmod(0o755)
        kept = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        self.environment = kept | {
            "PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}",
            "HUNYUAN_LOCAL_VENV": str(self.venv),
            "STUB_LOG": str(self.log),
            "STUB_PYTHON": sys.executable,
        }

    def run(self, script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.root / script, *arguments],
            cwd=self.elsewhere,
            env=self.environment | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    def take_calls(self, containing: str = "") -> list[str]:
        """The stub's calls since the last time."""
        calls = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return [call for call in calls if containing in call]

    def take_installs(self) -> list[str]:
        return self.take_calls("pip install")


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.mark.parametrize("script", [*COMMANDS, "scripts/environment"])
def test_is_valid_bash(script: str) -> None:
    subprocess.run(["bash", "-n", ROOT / script], check=True)


@pytest.mark.parametrize("script", COMMANDS)
def test_is_executable(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)


def test_second_run_installs_nothing(checkout: Checkout) -> None:
    first = checkout.run("scripts/demo")
    assert first.returncode == 0, first.stderr
    assert "Installing" in first.stderr
    assert first.stdout == ""
    assert checkout.take_installs()[0].endswith("--constraint constraints.txt --editable .")

    second = checkout.run("scripts/demo")
    assert second.returncode == 0, second.stderr
    assert second.stderr == ""
    assert checkout.take_calls() == []


def test_environment_of_the_tests_serves_the_demo_but_not_the_other_way(checkout: Checkout) -> None:
    checkout.run("scripts/demo")
    checkout.take_calls()

    assert checkout.run("scripts/test").returncode == 0
    assert checkout.take_installs()[0].endswith("--editable .[dev]")

    for script in ("scripts/demo", "scripts/check", "scripts/docs", "scripts/test"):
        assert checkout.run(script).returncode == 0
    assert checkout.take_installs() == []


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_changed_requirements_are_installed(checkout: Checkout, name: str) -> None:
    checkout.run("scripts/demo")
    checkout.take_calls()
    with (checkout.root / name).open("a") as file:
        file.write("# changed\n")

    checkout.run("scripts/demo")
    assert len(checkout.take_installs()) == 1


def test_failed_installation_is_reported_and_repaired_by_the_next_run(checkout: Checkout) -> None:
    checkout.run("scripts/demo")
    with (checkout.root / "constraints.txt").open("a") as file:
        file.write("# changed\n")
    checkout.take_calls()

    failed = checkout.run("scripts/demo", STUB_FAIL="install")
    assert failed.returncode != 0
    assert failed.stderr.splitlines()[-2] == "stub failed"
    assert failed.stderr.splitlines()[-1].startswith("Error: the installation failed")
    assert not list(checkout.venv.glob("*.stamp"))
    checkout.take_calls()

    assert checkout.run("scripts/demo").returncode == 0
    assert len(checkout.take_installs()) == 1


def test_environment_without_a_working_python_is_made_anew(checkout: Checkout) -> None:
    checkout.run("scripts/demo")
    (checkout.venv / "bin" / "python").unlink()
    checkout.take_calls()

    assert checkout.run("scripts/demo").returncode == 0
    calls = checkout.take_calls()
    assert calls[0] == f"-m venv --clear {checkout.venv}"
    assert "pip install" in calls[-1]


def test_folder_that_is_no_environment_is_not_emptied(checkout: Checkout) -> None:
    checkout.venv.mkdir()
    checkout.run("scripts/demo")
    assert checkout.take_calls()[0] == f"-m venv {checkout.venv}"


def test_old_python_is_refused_with_the_remedy(checkout: Checkout) -> None:
    result = checkout.run("scripts/demo", STUB_VERSION="3.9")
    assert result.returncode != 0
    assert result.stderr.splitlines() == [
        "Error: python3 is Python 3.9; 3.11 or later is required; install it and put it first on the PATH"
    ]
    assert checkout.take_calls() == []


def test_missing_venv_module_is_refused_with_the_remedy(checkout: Checkout) -> None:
    result = checkout.run("scripts/demo", STUB_FAIL="-m venv")
    assert result.returncode != 0
    assert "apt install python3-venv" in result.stderr.splitlines()[-1]


def _generate_arguments(checkout: Checkout) -> list[str]:
    return Path(f"{checkout.log}.generate").read_text().splitlines()


def test_demo_generates_with_the_tiny_model_into_outputs(checkout: Checkout) -> None:
    checkout.run("scripts/demo")
    command, prompt, *options, output = _generate_arguments(checkout)
    assert (command, prompt) == ("generate", "a red circle moving right on a black background")
    assert options == ["--model", "tiny", "--output"]
    assert Path(output).parent == checkout.root / "outputs"
    assert Path(output).parent.is_dir()
    assert Path(output).suffix == ".mp4"


def test_demo_hands_on_prompt_and_options(checkout: Checkout) -> None:
    checkout.run("scripts/demo", "a blue square; $HOME", "--seed", "3")
    arguments = _generate_arguments(checkout)
    assert arguments[1] == "a blue square; $HOME"
    assert arguments[-2:] == ["--seed", "3"]

    checkout.run("scripts/demo", "--seed", "3")
    arguments = _generate_arguments(checkout)
    assert arguments[1] == "a red circle moving right on a black background"
    assert arguments[-2:] == ["--seed", "3"]


# The tests of a file stay in one process, and the longest files start first.
IN_PARALLEL = "--dist loadfile --no-loadscope-reorder"


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ([], f"-m pytest --numprocesses 3 {IN_PARALLEL} --durations=30 (1 thread)"),
        (["--quick"], f"-m pytest --quick --numprocesses 2 {IN_PARALLEL} (1 thread)"),
        (
            ["--coverage"],
            f"-m pytest -p pytest_cov.plugin --cov --cov-report=term --numprocesses 3 {IN_PARALLEL} --durations=30 "
            "--cov-fail-under=96 (1 thread)",
        ),
        (["-k", "two words"], "-m pytest -k two words"),
        (["tests/test_schema.py", "--quick", "-x"], "-m pytest --quick tests/test_schema.py -x"),
        (["--coverage", "-k", "x"], "-m pytest -p pytest_cov.plugin --cov --cov-report=term -k x"),
    ],
)
def test_test_runs_in_parallel_unless_tests_are_chosen(checkout: Checkout, arguments: list[str], wanted: str) -> None:
    checkout.run("scripts/test", *arguments)
    assert checkout.take_calls()[-1] == wanted


def test_a_number_of_threads_that_is_set_stays(checkout: Checkout) -> None:
    checkout.run("scripts/test", OMP_NUM_THREADS="2")
    assert checkout.take_calls()[-1].endswith("(2 thread)")


@pytest.mark.parametrize(("cores", "processes"), [(1, 2), (4, 5), (5, 6), (64, 6)])
def test_there_is_one_process_more_than_cores_and_no_more_than_six(
    checkout: Checkout, cores: int, processes: int
) -> None:
    checkout.run("scripts/test", STUB_CORES=str(cores))
    assert f"--numprocesses {processes} " in checkout.take_calls()[-1]


def test_quick_tests_install_neither_clients_nor_a_browser(checkout: Checkout) -> None:
    (checkout.programs / "chromium").unlink()
    result = checkout.run("scripts/test", "--quick")
    assert result.returncode == 0
    assert "chromium" not in result.stderr and _client_calls(checkout) == []


def test_failed_tests_fail_the_script(checkout: Checkout) -> None:
    assert checkout.run("scripts/test", STUB_FAIL="-m pytest").returncode == 1


def _client_calls(checkout: Checkout) -> list[str]:
    """The clients installed since the last time, by the tool that installs them."""
    calls = checkout.take_calls()
    assert calls[-1].startswith("-m pytest")
    return [call.split()[0] for call in calls if call.startswith("npm ci") or "--target ." in call]


def test_tests_install_the_published_clients_once(checkout: Checkout) -> None:
    assert checkout.run("scripts/test").returncode == 0
    assert _client_calls(checkout) == ["-m", "npm"]

    second = checkout.run("scripts/test")
    assert (second.returncode, second.stderr) == (0, "")
    assert [call for call in checkout.take_calls() if not call.startswith("-m pytest")] == []


@pytest.mark.parametrize(
    ("changed", "installed"), [("wavespeed-1/requirements.txt", "-m"), ("node/package-lock.json", "npm")]
)
def test_changed_clients_alone_are_installed_again(checkout: Checkout, changed: str, installed: str) -> None:
    checkout.run("scripts/test")
    checkout.take_calls()
    with (checkout.root / "tests" / "clients" / changed).open("a") as file:
        file.write("\n")

    checkout.run("scripts/test")
    assert _client_calls(checkout) == [installed]


def test_failed_installation_of_a_python_client_stops_the_tests(checkout: Checkout) -> None:
    result = checkout.run("scripts/test", STUB_FAIL="--target")
    assert result.returncode != 0
    assert result.stderr.splitlines()[-1].startswith("Error: the installation failed")
    assert "-m pytest" not in checkout.take_calls()


@pytest.mark.parametrize(
    ("node", "said"),
    [("missing", "node or npm is not on the PATH"), ("v16.20.2", "node is 16.20.2; 18 or later is required")],
)
def test_tests_run_without_node_and_say_what_is_skipped(checkout: Checkout, node: str, said: str) -> None:
    for _ in range(2):
        result = checkout.run("scripts/test", STUB_NODE=node)
        assert result.returncode == 0
        assert result.stderr.splitlines()[-1] == f"Note: {said}: {SKIPPED}"
    assert "npm" not in _client_calls(checkout)


def test_tests_run_without_the_javascript_clients_until_npm_can_install_them(checkout: Checkout) -> None:
    failed = checkout.run("scripts/test", STUB_FAIL="npm")
    assert failed.returncode == 0
    assert failed.stderr.splitlines()[-1] == (
        f"Note: npm could not install the JavaScript clients, see above: {SKIPPED}"
    )
    assert not (checkout.venv / "clients" / "node" / "stamp").exists()
    checkout.take_calls()

    assert SKIPPED not in checkout.run("scripts/test").stderr
    assert _client_calls(checkout) == ["npm"]


def test_locked_javascript_packages_come_from_the_public_registry() -> None:
    lock = json.loads((ROOT / "tests" / "clients" / "node" / "package-lock.json").read_text())
    packages = [package for name, package in lock["packages"].items() if name]
    assert packages
    assert all(package["resolved"].startswith("https://registry.npmjs.org/") for package in packages)
    assert all(package["integrity"].startswith("sha512-") for package in packages)


@pytest.mark.parametrize(
    ("fail", "code"),
    [
        ("", 0),
        ("ruff check", 1),
        ("ruff format", 1),
        ("-m mypy", 1),
        ("-m sphinx", 1),
        ("-m pytest", 1),
        ("pip install", 1),
    ],
)
def test_ci_runs_everything_and_fails_if_anything_does(checkout: Checkout, fail: str, code: int) -> None:
    result = checkout.run(".ci/run", STUB_FAIL=fail, CI="true")
    assert result.returncode == code, result.stderr
    calls = checkout.take_calls()
    if fail != "pip install":
        assert [
            call.split()[1] for call in calls if call.startswith(("-m ruff", "-m mypy", "-m sphinx", "-m pytest"))
        ] == [
            "ruff",
            "ruff",
            "mypy",
            "sphinx",
            "pytest",
        ]
        assert calls[-1].startswith("-m pytest")


@pytest.fixture
def newest(checkout: Checkout) -> Path:
    """The environment of the newest releases, made by ``scripts/check --newest``."""
    result = checkout.run("scripts/check", "--newest")
    assert result.returncode == 0, result.stderr
    return checkout.venv.with_name(f"{checkout.venv.name}-newest")


def test_the_newest_releases_are_tried_in_a_separate_environment(checkout: Checkout, newest: Path) -> None:
    assert (newest / "bin" / "python").exists() and not checkout.venv.exists()
    assert any(call.startswith("-m pytest --quick") for call in checkout.take_calls())


def test_the_newest_releases_are_those_without_an_upper_bound(newest: Path) -> None:
    wanted = (newest / "newest.txt").read_text().splitlines()
    assert "diffusers>=0.42" in wanted and "bitsandbytes>=0.48; sys_platform != 'darwin'" in wanted
    assert not [line for line in wanted if "<" in line or "hunyuan" in line]


def test_with_the_newest_releases_torch_is_as_constrained(checkout: Checkout, newest: Path) -> None:
    assert (newest / "torch.txt").read_text() == "".join(
        line for line in (ROOT / "constraints.txt").read_text().splitlines(keepends=True) if line.startswith("torch==")
    )
    upgrade, package = checkout.take_installs()
    assert f"--upgrade --upgrade-strategy eager --constraint {newest}/torch.txt" in upgrade
    assert package.endswith("--no-deps --editable .")


def test_a_newest_release_that_cannot_be_installed_fails_the_check(checkout: Checkout) -> None:
    result = checkout.run("scripts/check", "--newest", STUB_FAIL="--upgrade-strategy")
    assert result.returncode == 1
    assert "the installation failed" in result.stderr
    assert not checkout.take_calls("-m pytest")


def test_check_refuses_other_options(checkout: Checkout) -> None:
    result = checkout.run("scripts/check", "--latest")
    assert (result.returncode, checkout.take_calls()) == (2, [])
