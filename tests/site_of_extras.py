"""The built wheel in environments with exactly what ``pip install 'hunyuan-local[EXTRA]'`` installs.

Nothing is installed: the packages are links to those of the running environment, which has all extras. Which ones, the
requirements say, beginning with the wheel's own, as pip reads them.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
CHILD = Path(__file__).with_name("inside_site.py")
# For a file: the package that it belongs to, and the parts of its path relative to site-packages.
_File = tuple[str, tuple[str, ...]]


@dataclass(frozen=True)
class Answer:
    """A step's output, its exit code, and whether it loaded torch."""

    code: int
    stdout: str
    stderr: str
    loads_torch: bool


@dataclass(frozen=True)
class Site:
    """An environment: its interpreter, and the names of its packages other than ours."""

    python: Path
    packages: frozenset[str]

    def run(self, steps: Sequence[Sequence[str | Path]], cwd: Path, **variables: str) -> list[Answer]:
        """Run these steps one after another in one process, in a folder; see ``inside_site.py``."""
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
        words = json.dumps([[*map(str, step)] for step in steps])
        command = [self.python, "-P", CHILD]
        done = subprocess.run(command, cwd=cwd, env=kept | variables, input=words, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return [Answer(**answer) for answer in json.loads(done.stdout.splitlines()[-1])]


def build_wheel(folder: Path) -> Path:
    """Build the wheel in a folder."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    build = subprocess.run(command, capture_output=True, text=True)
    assert build.returncode == 0, build.stdout + build.stderr
    (path,) = folder.glob("*.whl")
    return path


def unpack(wheel: Path, folder: Path) -> Distribution:
    """The wheel's files in a folder, as an installed package."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    (package,) = distributions(path=[str(folder)])
    return package


def make_site(folder: Path, package: Distribution, extra: str = "") -> Site:
    """Create a virtual environment with the package, one of its extras, and everything that these require.

    Args:
        folder: created by this function.
        package: the unpacked wheel; its files are linked to.
    """
    packages = required(package, extra)
    venv.EnvBuilder(symlinks=True).create(folder)
    (place,) = folder.glob("lib/python*/site-packages")
    for entry in Path(package.locate_file("")).iterdir():
        (place / entry.name).symlink_to(entry)
    for source, files in _files().items():
        _link(place, source, files, packages)
    return Site(folder / "bin" / "python", packages)


def required(package: Distribution, extra: str = "") -> frozenset[str]:
    """The names of all packages that pip would install for this one with an extra, without its own name."""
    own = canonicalize_name(package.name)
    known = _installed() | {own: package}
    done: set[tuple[str, str]] = set()
    todo = [(own, ""), (own, extra)]
    while todo:
        name, wanted = todo.pop()
        if (name, wanted) in done:
            continue
        done.add((name, wanted))
        assert name in known, f"{name} is not installed here; 'scripts/test' installs all that the tests need"
        for requirement in map(Requirement, known[name].requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": wanted}):
                todo += [(canonicalize_name(requirement.name), each) for each in ("", *requirement.extras)]
    return frozenset(name for name, _ in done) - {own}


@cache
def _installed() -> dict[str, Distribution]:
    """The packages of the running environment, by name."""
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    return {canonicalize_name(found.name): found for found in distributions(path=sorted(folders))}


@cache
def _files() -> dict[Path, list[_File]]:
    """The files of all installed packages, by folder."""
    files: dict[Path, list[_File]] = defaultdict(list)
    for name, found in _installed().items():
        paths = (PurePosixPath(row[0]) for row in csv.reader((found.read_text("RECORD") or "").splitlines()))
        files[Path(found.locate_file(""))] += [
            (name, path.parts) for path in paths if not path.is_absolute() and ".." not in path.parts
        ]
    return files


def _link(place: Path, source: Path, files: Iterable[_File], wanted: frozenset[str]) -> None:
    """Link the files of the wanted packages; a folder shared with other packages is created and filled likewise."""
    entries: dict[str, list[_File]] = defaultdict(list)
    for owner, parts in files:
        entries[parts[0]].append((owner, parts[1:]))
    for name, inside in entries.items():
        owners = {owner for owner, _ in inside}
        is_file = not all(parts for _, parts in inside)
        if owners <= wanted or (is_file and owners & wanted):
            (place / name).symlink_to(source / name)
        elif owners & wanted:
            (place / name).mkdir()
            _link(place / name, source / name, inside, wanted)
