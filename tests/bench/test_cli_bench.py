"""``hunyuan-local bench``: what it refuses and asks before it begins, exit codes, going on, and ``compare``."""

from __future__ import annotations

import copy
import io
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import run_here
from filelock import FileLock
from standin import StandIn, sample_video

from hunyuan_local.backends.wavespeed import WaveSpeedBackend
from hunyuan_local.bench import session
from hunyuan_local.bench.card import machine_card
from hunyuan_local.bench.result import load_result

Run = Callable[..., subprocess.CompletedProcess]
FILE = {
    "name": "cheap",
    "repeats": 1,
    "scenarios": [
        {"name": "a", "prompts": ["a fox"], "sizes": ["1280x720"], "num_inference_steps": [2, 4], "seeds": [7]}
    ],
}


@pytest.fixture
def service() -> Iterator[StandIn]:
    """A stand-in whose tasks are done at the first look."""
    with StandIn(sample_video(), polls_until_done=0) as service:
        yield service


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    """This machine's card, made in this process: another one for each command would take seconds."""
    return machine_card()


@pytest.fixture
def run(tmp_path: Path, service: StandIn, card: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``bench`` in the test's folder, with a scenario file and keys of the stand-in."""
    write(tmp_path)
    monkeypatch.setattr(session, "_describe", lambda process: copy.deepcopy(card))

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
    """The stand-in in the place of WaveSpeed itself: its address is taken for the service's own."""
    monkeypatch.setattr(WaveSpeedBackend, "default_url", service.url)


def write(folder: Path, **changes: object) -> None:
    (folder / "cheap.yaml").write_text(json.dumps(FILE | changes))


def own(service: StandIn, *more: str) -> list[str]:
    """Arguments of a bench at the stand-in, as a server of one's own."""
    return ["--scenarios", "cheap.yaml", "--backend", f"wavespeed={service.url}", "-o", "out", *more]


BILLED = ["--scenarios", "cheap.yaml", "--backend", "wavespeed", "-o", "out"]


# ---- refused before anything begins ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "say what to measure"),
        (["--backend", "novita", "--model", "tiny", "--lora", "a"], "--model, --lora: of the local backend alone"),
        (["--backend", "local", "--api-key", "k"], "--api-key: is of one hosted backend, and there are 0"),
        (["--backend", "wavespeed", "--backend", "novita", "--api-key", "k"], "and there are 2"),
        (["--backend", "local", "--timeout", "3"], "--timeout: is of hosted backends alone"),
        (["--backend", "local", "--model", "nope"], "model='nope'"),
        (["--backend", "local", "--scenarios", "nope"], "scenarios='nope'"),
        (["--backend", "novita=http://127.0.0.1:1", "--max-cost", "3"], "no backend of this bench is billed"),
        (["--yes", "compare", "a.json", "b.json"], "--yes: no option of 'bench compare'"),
    ],
)
def test_options_that_say_nothing_are_refused(run: Run, arguments: list[str], words: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2 and words in done.stderr
    assert done.stdout == ""


def test_a_folder_in_use_is_refused(run: Run, service: StandIn, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".bench.lock"):
        done = run(*own(service))
    assert done.returncode == 2 and "another process works on this bench" in done.stderr


# ---- billed ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("billed")
def test_nothing_is_sent_unasked_where_there_is_nobody_to_ask(run: Run, service: StandIn) -> None:
    done = run(*BILLED)
    assert done.returncode == 2 and "2 videos would be billed, 0.80 US dollars" in done.stderr
    assert "add --yes" in done.stderr and service.requests == []


class Terminal(io.StringIO):
    """A standard input that somebody types into."""

    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("billed")
@pytest.mark.parametrize(("answer", "code", "sent"), [("n\n", 130, 0), ("y\n", 0, 2)])
def test_at_a_terminal_it_is_asked(
    run: Run, service: StandIn, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, sent: int
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    done = run(*BILLED)
    assert (done.returncode, len(service.submissions)) == (code, sent), done.stderr
    assert "wavespeed: 2 videos at 0.40 US dollars each, 0.80 in all" in done.stderr


@pytest.mark.usefixtures("billed")
def test_with_yes_and_a_limit_the_rest_fails_and_the_spending_is_told(run: Run, service: StandIn) -> None:
    done = run(*BILLED, "--yes", "--max-cost", "0.5")
    assert done.returncode == 21 and "1 of 2 runs failed (SpendingLimitError)" in done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (summary["submissions"], summary["spent_usd"]) == (1, 0.4)


def test_a_server_of_ones_own_is_not_asked_for(run: Run, service: StandIn) -> None:
    done = run(*own(service))
    assert (done.returncode, len(service.submissions)) == (0, 2), done.stderr
    assert "billed" not in done.stderr


# ---- going on --------------------------------------------------------------------------------------------------------


def test_a_failed_run_has_an_exit_code_and_a_remedy(run: Run, service: StandIn) -> None:
    service.inject("task-failed")
    done = run(*own(service))
    assert done.returncode == 21
    assert "1 of 2 runs failed (TaskFailedError)" in done.stderr and "--retry-failed" in done.stderr
    again = run(*own(service, "--retry-failed"))
    assert (again.returncode, len(service.submissions)) == (0, 3), again.stderr


def test_another_bench_is_not_mixed_in(run: Run, service: StandIn, tmp_path: Path) -> None:
    run(*own(service))
    write(tmp_path, allow_loss=True)
    other = run(*own(service, "--repeats", "1", "--backend", f"novita={service.url}"))
    assert other.returncode == 2
    for words in ("the scenario file has changed in allow_loss", "backends: wavespeed at", "give another --output-dir"):
        assert words in other.stderr


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


def test_repeats_may_grow_and_do_not_fall(run: Run, service: StandIn) -> None:
    run(*own(service))
    assert run(*own(service, "--repeats", "2")).returncode == 0
    assert len(service.submissions) == 4
    done = run(*own(service))
    assert done.returncode == 2 and "repeats: 2 then, 1 now" in done.stderr


def test_without_a_folder_a_new_one_is_made_and_named(run: Run, service: StandIn, tmp_path: Path) -> None:
    done = run("--scenarios", "cheap.yaml", "--backend", f"wavespeed={service.url}", "--no-keep-videos")
    (folder,) = tmp_path.glob("bench-cheap-*")
    assert folder.name in done.stderr
    assert (folder / "report.md").is_file() and list(folder.rglob("*.mp4")) == []


# ---- compare ---------------------------------------------------------------------------------------------------------


def test_two_benches_are_compared(run: Run, service: StandIn, tmp_path: Path) -> None:
    run(*own(service))
    file = str(tmp_path / "out" / "result.json")
    table = run("compare", file, file)
    assert table.returncode == 0, table.stderr
    assert max(map(len, table.stdout.splitlines())) <= 80
    assert json.loads(run("compare", file, file, "--json").stdout.splitlines()[-1])


def test_what_is_no_bench_is_not_compared(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    done = run("compare", "a.json", "a.json")
    assert done.returncode == 2 and "is not the result of a bench" in done.stderr
