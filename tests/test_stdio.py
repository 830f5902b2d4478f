"""Output when stdout or stderr is closed, full, abandoned by its reader, or has a narrow encoding."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("starts_process")

PREPARED = "import os, sys\nfrom hunyuan_local.stdio import *\nprepare_streams()\n"

# A command line whose command is the rest of the line.
MAIN = (
    "import time\nfrom hunyuan_local.cli import main\nfrom hunyuan_local.errors import ConfigError\n"
    "main.group = type('Group', (), {})\nmain.group.main = lambda **_: ("
)


def run(code: str, redirection: str = "", **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run a few lines after ``prepare_streams``, with a shell redirection."""
    command = ["bash", "-c", f'set -o pipefail; "$0" -c "$1" {redirection}', sys.executable, PREPARED + code]
    return subprocess.run(command, env=os.environ | variables, capture_output=True, stdin=subprocess.DEVNULL)


def test_what_the_encoding_does_not_hold_is_escaped_as_in_json() -> None:
    done = run("print('\\xe9\\U0001f600')", PYTHONIOENCODING="ascii")
    assert done.stdout == b"\\u00e9\\ud83d\\ude00\n"
    assert json.loads(b'"' + done.stdout.strip() + b'"') == "\xe9\U0001f600"


def test_a_raw_byte_of_a_name_is_escaped() -> None:
    assert run("print(os.fsdecode(b'r\\xff.mp4'))", PYTHONIOENCODING="utf-8").stdout == b"r\\udcff.mp4\n"


@pytest.mark.parametrize(
    ("redirection", "why"),
    [
        (">&-", b"stdout is closed"),
        (">/dev/full", b"stdout cannot be written: No space left on device"),
        ("| true", b"the reader of stdout has closed it"),
        ("", b""),
    ],
)
def test_why_a_result_cannot_be_printed(redirection: str, why: bytes) -> None:
    wait = "import time; time.sleep(1); " if "|" in redirection else ""
    done = run(f"{wait}sys.stderr.write(tell('x'))", redirection)
    assert (done.returncode, done.stderr) == (0, why)


@pytest.mark.parametrize("size", [1, 5_000, 100_000])
@pytest.mark.parametrize(
    ("redirection", "message"),
    [
        (">/dev/full", "stdout cannot be written: No space left on device; redirect it elsewhere, or free disk space"),
        ("| true", "the reader of stdout has closed it; the rest of the output is lost"),
    ],
)
def test_an_output_that_cannot_be_written_is_one_line_and_exit_code_24(
    redirection: str, message: str, size: int
) -> None:
    done = run(f"{MAIN}time.sleep(0.5), print('x' * {size}))\nmain.main()", redirection)
    assert (done.returncode, done.stderr.decode()) == (24, f"error: {message}\n")


@pytest.mark.parametrize("code", [1, 24])
def test_it_changes_the_exit_code_of_a_command_that_ends_by_itself(code: int) -> None:
    redirection = ">/dev/full" if code == 24 else ""
    done = run(f"{MAIN}print('different'), sys.exit(1))\nmain.main()", redirection)
    assert done.returncode == code


def test_it_does_not_replace_the_error_of_a_command() -> None:
    done = run(f"{MAIN}print('x'), exec('raise ConfigError(1)'))\nmain.main()", ">/dev/full")
    assert (done.returncode, done.stderr) == (2, b"error: 1\n")


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2> >(true)"])
def test_a_stderr_that_takes_nothing_ends_nothing(redirection: str) -> None:
    done = run("import time; time.sleep(0.5); print('a', file=sys.stderr); print('done')", redirection)
    assert (done.returncode, done.stdout) == (0, b"done\n")


def test_no_file_gets_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    done = run(f"print(open({str(tmp_path / 'a')!r}, 'w').fileno() > 2)", "2>&- <&-")
    assert done.stdout == b"True\n"


def test_an_announcement_is_a_line_in_a_log() -> None:
    assert run("announce('loading'); print('next', file=sys.stderr)").stderr == b"loading ...\nnext\n"


def test_on_a_terminal_the_next_output_replaces_it() -> None:
    ours, theirs = pty.openpty()
    code = PREPARED + "announce('loading'); print('next', file=sys.stderr)"
    subprocess.run([sys.executable, "-c", code], stderr=theirs, env=os.environ | {"TERM": "xterm"}, check=True)
    os.close(theirs)
    assert os.read(ours, 1000) == b"loading ...\r\x1b[2Knext\r\n"
    os.close(ours)
