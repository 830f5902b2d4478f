"""Start-up time of the command line: ``--help`` and the bare import, compared with diffusers' own command.

Whole processes alternate, so that drift of the machine affects all alike; ratios are ratios of medians. A first round,
which does not count, compiles the bytecode of every module into a separate folder and fills the disk cache, so the
results are those of every start but the first.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

AGAINST = "diffusers-cli --help"


@dataclass
class Command:
    """A command, and the seconds of each start."""

    title: str
    arguments: Sequence[str]
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def commands() -> list[Command]:
    """The compared commands, as installed next to this Python."""
    scripts = Path(sysconfig.get_path("scripts"))
    return [
        Command("hunyuan-local --help", [str(scripts / "hunyuan-local"), "--help"]),
        Command("import hunyuan_local", [sys.executable, "-c", "import hunyuan_local"]),
        Command("python -c pass", [sys.executable, "-c", "pass"]),
        Command(AGAINST, [str(scripts / "diffusers-cli"), "--help"]),
    ]


def measure(found: Sequence[Command], rounds: int) -> None:
    """Start the commands alternately, once as a warm-up and then ``rounds`` times."""
    with tempfile.TemporaryDirectory() as bytecode:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = bytecode
        for number in range(rounds + 1):
            for command in found:
                began = time.perf_counter()
                subprocess.run(
                    command.arguments, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
                if number:
                    command.seconds.append(time.perf_counter() - began)


def table(found: Sequence[Command], rounds: int) -> str:
    """One line per command: its median, and its fraction of diffusers' command."""
    against = next(command for command in found if command.title == AGAINST)
    lines = [
        f"median of {rounds} starts, alternating, whole processes; {os.cpu_count()} cores, {platform.system()} "
        f"{platform.machine()}, Python {platform.python_version()}",
        "",
        f"{'':24}{'seconds':>9}{'fastest':>9}{'slowest':>9}{'of ' + AGAINST:>26}",
    ]
    for command in found:
        lines.append(
            f"{command.title:24}{command.median:>9.3f}{min(command.seconds):>9.3f}{max(command.seconds):>9.3f}"
            f"{command.median / against.median:>26.3f}"
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, help=".txt file; a .json file with every start is written next to it")
    options = parser.parse_args(arguments)
    found = commands()
    measure(found, options.rounds)
    text = table(found, options.rounds)
    print(text)
    if options.output is not None:
        options.output.write_text(text)
        starts = {command.title: command.seconds for command in found}
        options.output.with_suffix(".json").write_text(json.dumps(starts, indent=1) + "\n")


if __name__ == "__main__":
    main()
