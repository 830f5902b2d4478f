"""``hunyuan-local bench``: refusals and confirmation before it starts, exit codes, resuming, and ``compare``."""

from __future__ import annotations

import copy
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import run_here
from filelock import FileLock
from made_results import CARD, made_result, made_run
from standin import StandIn

from hunyuan_local.backends.hosted.wavespeed import WaveSpeedBackend
from hunyuan_local.bench.report import plots
from hunyuan_local.bench.results.result import load_result
from hunyuan_local.bench.run import session

Run = Callable[..., subprocess.CompletedProcess]
FILE = {
    "name": "cheap",
    "repeats": 1,
    "scenarios": [
        {"name": "a", "prompts": ["a fox"], "sizes": ["1280x720"], "num_inference_steps": [2, 4], "seeds": [7]}
    ],
}


@pytest.fixture
def run(tmp_path: Path, service: StandIn, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``bench`` in the test's folder, with a scenario file and keys for the stand-in.

    The machine card needs a process and plots are slow; both are tested elsewhere.
    """
    write(tmp_path)
    monkeypatch.setattr(session, "_describe", lambda process: copy.deepcopy(CARD))
    monkeypatch.setattr(plots, "make_plots", lambda result, folder: {name: "not wanted" for name in plots.PLOTS})

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
        given = {
            "WAVESPEED_API_KEY": service.key,
            "NOVITA_API_KEY": service.key,
            "HUNYUAN_LOCAL_STATE_DIR": str(tmp_path / "state"),
        }
        return run_here("bench", *arguments, cwd=tmp_path, **given | environment)

    return run


@pytest.fixture
def billed(monkeypatch: pytest.MonkeyPatch, service: StandIn) -> None:
    """Treats the stand-in as WaveSpeed itself, so that its videos are billed."""
    monkeypatch.setattr(WaveSpeedBackend, "default_url", service.url)


def write(folder: Path, **changes: object) -> None:
    (folder / "cheap.yaml").write_text(json.dumps(FILE | changes))


def own(service: StandIn, *more: str) -> list[str]:
    """Arguments of a bench at the stand-in as a self-hosted server."""
    return ["--scenarios", "cheap.yaml", "--backend", f"wavespeed={service.url}", "-o", "out", *more]


BILLED = ["--scenarios", "cheap.yaml", "--backend", "wavespeed", "-o", "out"]


# ---- refused before anything begins ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give at least one backend to measure"),
        (["--backend", "novita", "--model", "tiny", "--lora", "a"], "--model, --lora: only for the local backend"),
        (["--backend", "local", "--api-key", "k"], "--api-key: needs exactly one hosted backend, not 0"),
        (["--backend", "wavespeed", "--backend", "novita", "--api-key", "k"], "one hosted backend, not 2"),
        (["--backend", "local", "--timeout", "3"], "--timeout: only for hosted backends"),
        (["--backend", "local", "--model", "nope"], "model='nope'"),
        (["--backend", "local", "--scenarios", "nope"], "scenarios='nope'"),
        (["--backend", "novita=127.0.0.1:8000"], "base_url='127.0.0.1:8000': must be like https://host"),
        (["--backend", "novita", "--scenarios", "smoke", "--repeats", "3000"], "15000 runs (5 requests, 3000 repeats"),
        (["--backend", "wavespeed", "--scenarios", "cheap.yaml", "--max-cost", "0"], "max_cost=0: must be above 0"),
        (["--backend", "novita=http://127.0.0.1:1", "--max-cost", "3"], "no backend of this bench is billed"),
        (["--yes", "compare", "a.json", "b.json"], "--yes: not an option of 'bench compare'"),
    ],
)
def test_options_without_effect_are_refused(run: Run, arguments: list[str], words: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2 and words in done.stderr
    assert done.stdout == ""


def test_a_folder_in_use_is_refused(run: Run, service: StandIn, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".bench.lock"):
        done = run(*own(service))
    assert done.returncode == 2 and "another process is running this bench" in done.stderr


def test_a_folder_with_other_content_is_refused_and_unchanged(run: Run, service: StandIn, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.md").write_text("mine")
    done = run(*own(service))
    assert done.returncode == 2 and "contains files that are not a bench (report.md)" in done.stderr
    assert [path.read_text() for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_an_invalid_result_file_is_refused(run: Run, service: StandIn, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "result.json").write_text("[1]")
    done = run(*own(service))
    assert done.returncode == 2 and "not the result of a bench" in done.stderr


def test_scenarios_for_none_of_the_backends_are_refused(run: Run, service: StandIn, tmp_path: Path) -> None:
    write(tmp_path, scenarios=[FILE["scenarios"][0] | {"backends": ["local", "novita"]}])
    done = run(*own(service))
    assert done.returncode == 2 and "no scenario of cheap includes wavespeed; they include local, novita" in done.stderr


def test_a_missing_key_is_found_before_anything_runs(run: Run, service: StandIn, tmp_path: Path) -> None:
    done = run(*own(service), WAVESPEED_API_KEY="")
    assert done.returncode == 7 and "wavespeed needs a key" in done.stderr
    assert not (tmp_path / "out" / "result.json").exists()


# ---- billed ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("billed")
def test_nothing_is_sent_without_a_terminal_to_confirm(run: Run, service: StandIn) -> None:
    done = run(*BILLED)
    assert done.returncode == 2 and "2 videos would be billed, 0.80 US dollars" in done.stderr
    assert "add --yes" in done.stderr and service.requests == []


class Terminal(io.StringIO):
    """Standard input from a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("starts_process")
@pytest.mark.usefixtures("billed")
@pytest.mark.parametrize(("answer", "code", "sent"), [("n\n", 130, 0), ("y\n", 0, 2)])
def test_a_terminal_asks_for_confirmation(
    run: Run, service: StandIn, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, sent: int
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    done = run(*BILLED)
    assert (done.returncode, len(service.submissions)) == (code, sent), done.stderr
    assert "wavespeed: 2 videos at 0.40 US dollars each, 0.80 in total" in done.stderr


@pytest.mark.usefixtures("starts_process")
@pytest.mark.usefixtures("billed")
def test_with_yes_and_a_limit_the_rest_fails_and_the_spending_is_reported(run: Run, service: StandIn) -> None:
    done = run(*BILLED, "--yes", "--max-cost", "0.5")
    assert done.returncode == 21 and "1 of 2 runs failed (SpendingLimitError)" in done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (summary["submissions"], summary["spent_usd"]) == (1, 0.4)


@pytest.mark.usefixtures("starts_process")
def test_a_self_hosted_server_needs_no_confirmation(run: Run, service: StandIn) -> None:
    done = run(*own(service))
    assert (done.returncode, len(service.submissions)) == (0, 2), done.stderr
    assert "billed" not in done.stderr


# ---- resuming --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("starts_process")
def test_a_failed_run_has_an_exit_code_and_a_remedy(run: Run, service: StandIn) -> None:
    service.inject("task-failed")
    done = run(*own(service))
    assert done.returncode == 21
    assert "1 of 2 runs failed (TaskFailedError)" in done.stderr and "--retry-failed" in done.stderr
    again = run(*own(service, "--retry-failed"))
    assert (again.returncode, len(service.submissions)) == (0, 3), again.stderr


@pytest.mark.usefixtures("starts_process")
def test_another_bench_is_not_mixed_in(run: Run, service: StandIn, tmp_path: Path) -> None:
    run(*own(service))
    write(tmp_path, allow_loss=True)
    other = run(*own(service, "--repeats", "1", "--backend", f"novita={service.url}"))
    assert other.returncode == 2
    for words in ("the scenario file has changed in allow_loss", "backends: wavespeed at", "use another --output-dir"):
        assert words in other.stderr


@pytest.mark.usefixtures("starts_process")
@pytest.mark.parametrize(
    ("place", "words"),
    [(("versions", "torch"), "versions.torch: 0.1 then"), (("cpu", "model"), "cpu.model: 0.1 then")],
)
def test_runs_of_another_machine_are_not_mixed_in(
    run: Run, service: StandIn, tmp_path: Path, place: tuple[str, str], words: str
) -> None:
    run(*own(service))
    path = tmp_path / "out" / "result.json"
    result = load_result(path)
    result.machine[place[0]][place[1]] = "0.1"
    result.save(path)
    done = run(*own(service))
    assert done.returncode == 2 and words in done.stderr


@pytest.mark.usefixtures("starts_process")
def test_repeats_may_grow_and_do_not_fall(run: Run, service: StandIn) -> None:
    run(*own(service))
    assert run(*own(service, "--repeats", "2")).returncode == 0
    assert len(service.submissions) == 4
    done = run(*own(service))
    assert done.returncode == 2 and "repeats: 2 then, 1 now" in done.stderr


@pytest.mark.usefixtures("starts_process")
def test_without_a_folder_a_new_one_is_made_and_named(run: Run, service: StandIn, tmp_path: Path) -> None:
    done = run("--scenarios", "cheap.yaml", "--backend", f"wavespeed={service.url}", "--no-keep-videos")
    (folder,) = tmp_path.glob("bench-cheap-*")
    assert folder.name in done.stderr
    assert (folder / "report.md").is_file() and list(folder.rglob("*.mp4")) == []


# ---- compare ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("starts_process")
def test_two_benches_are_compared(run: Run, service: StandIn, tmp_path: Path) -> None:
    run(*own(service))
    file = str(tmp_path / "out" / "result.json")
    table = run("compare", file, file)
    assert table.returncode == 0, table.stderr
    *lines, last = table.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert json.loads(last) == json.loads(run("compare", file, file, "--json").stdout)


@pytest.mark.parametrize("content", ["{}", "[]", "# Bench", "\ud800"])
def test_invalid_bench_files_are_not_compared(run: Run, tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content, errors="surrogatepass")
    done = run("compare", "a.json", "a.json")
    assert done.returncode == 2 and "a.json: not the result of a bench" in done.stderr


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"runs": 3}, "runs: Input should be a valid"), ({"targets": [{}]}, "targets.0.label: Field required")],
)
def test_a_damaged_result_is_refused_where_it_is_damaged(
    run: Run, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    fields = json.loads(made_result([made_run()]).model_dump_json())
    (tmp_path / "a.json").write_text(json.dumps(fields | changes))
    done = run("compare", "a.json", "a.json")
    assert done.returncode == 2 and f"a.json: damaged result of a bench: {words}" in done.stderr


def test_a_damaged_request_is_refused_with_its_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(made_result([made_run()]).model_dump_json().replace('"width":256', '"width":7'))
    done = run("compare", "a.json", "a.json")
    assert done.returncode == 2 and "a.json: damaged result of a bench: width=7" in done.stderr
