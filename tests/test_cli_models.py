"""The commands ``download`` and ``models`` with a local Hub."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from command_line import PROGRAM, run_here
from hub_user import lead_to
from local_hub import COMMIT, LocalHub

from hunyuan_local.config import load_model_config

in_a_process = pytest.mark.usefixtures("starts_process")
TINY = Path(load_model_config("tiny").source)
MB = 1_000_000


class User:
    """Runs commands with a separate home folder and the local Hub."""

    def __init__(self, hub: LocalHub, home: Path):
        self.hub = hub
        self.home = home

    def types(self, *arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command in this process."""
        with pytest.MonkeyPatch.context() as patch:
            lead_to(self.hub, self.home / "hub", patch, offline=more.get("HF_HUB_OFFLINE") == "1")
            return run_here(*arguments, cwd=self.home, **self.hub.environment(self.home, **more))

    def starts(self, *arguments: str | Path, **streams: int) -> subprocess.Popen[str]:
        """Start a command in a separate process."""
        environment = os.environ | {"COLUMNS": "80", "TERM": "xterm"} | self.hub.environment(self.home)
        command = [*PROGRAM, *map(str, arguments)]
        return subprocess.Popen(command, cwd=self.home, env=environment, text=True, **streams)

    def models(self, *arguments: str | Path) -> dict[str, dict]:
        return {model["name"]: model for model in json.loads(self.types("models", "--json", *arguments).stdout)}

    @property
    def snapshot(self) -> Path:
        return self.home / "hub" / "models--someone--tiny" / "snapshots" / COMMIT

    def part_sizes(self) -> list[int]:
        """The bytes of each file that is still being downloaded; 0 for one that is renamed meanwhile."""
        sizes = []
        for part in (self.home / "hub" / "models--someone--tiny" / "blobs").glob("*.part"):
            with contextlib.suppress(FileNotFoundError):
                sizes.append(part.stat().st_size)
        return sizes

    def preset(self, *, licensed: bool = False) -> Path:
        """A user's model config: ``someone/tiny`` without a licence to accept, or under that of the 13 B model."""
        config = load_model_config("tiny").model_dump() | {"name": "mine", "model_id": "someone/tiny"}
        if licensed:
            config["licence"] = load_model_config("hunyuan-video").licence.model_dump()
        file = self.home / ("licensed.yaml" if licensed else "mine.yaml")
        file.write_text(yaml.safe_dump(config))
        return file


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    with LocalHub() as hub:
        yield User(hub, tmp_path)


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> User:
    """A user who has downloaded ``someone/tiny``; their Hub is no longer reachable."""
    with LocalHub() as hub:
        owner = User(hub, tmp_path_factory.mktemp("owner"))
        owner.downloaded = owner.types("download", "--model", owner.preset(licensed=True), "--accept-licence")
    owner.listed = owner.models()
    return owner


# download


def test_download_succeeds(owner: User) -> None:
    assert owner.downloaded.returncode == 0, owner.downloaded.stderr


def test_the_folder_is_all_that_is_on_stdout(owner: User) -> None:
    assert owner.downloaded.stdout.splitlines() == [str(owner.snapshot)]


def test_the_licence_and_its_territory_are_reported_before_the_size(owner: User) -> None:
    said = owner.downloaded.stderr
    places = (said.find("Tencent Hunyuan Community License"), said.find("European Union"), said.find("12.1 MB"))
    assert -1 not in places and sorted(places) == list(places)


@in_a_process
def test_a_new_process_obeys_the_environment_and_its_libraries_say_nothing(user: User) -> None:
    arguments = ["download", "--model", user.preset(licensed=True), "--accept-licence"]
    process = user.starts(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, said = process.communicate()
    assert (process.returncode, output.splitlines(), len(said.splitlines())) == (0, [str(user.snapshot)], 2), said


def test_without_acceptance_the_exit_code_is_2_and_nothing_is_asked(user: User) -> None:
    result = user.types("download", "--model", "hunyuan-video")
    assert (result.returncode, user.hub.calls) == (2, [])
    assert "hunyuan-local download --model hunyuan-video --accept-licence" in result.stderr


@pytest.mark.parametrize(
    "command",
    [["generate", "x"], ["plan"], ["explain", "x"], ["download"], ["serve", "--port", "0"]],
    ids=lambda c: c[0],
)
def test_a_repository_that_does_not_exist_has_exit_code_2_and_no_licence(command: list[str], user: User) -> None:
    result = user.types(*command, "--model", "no/such-model")
    assert (result.returncode, "no such Hub repository" in result.stderr) == (2, True), result.stderr
    assert "Tencent" not in result.stderr + result.stdout and "memory" not in result.stderr


def test_it_is_accepted_once(user: User) -> None:
    model = user.preset(licensed=True)
    user.types("download", "--model", model, "--accept-licence")
    assert user.types("download", "--model", model).returncode == 0


def test_an_unknown_revision_has_exit_code_2(user: User) -> None:
    result = user.types("download", "--model", "someone/tiny", "--revision", "nope", "--accept-licence")
    assert (result.returncode, "no such revision" in result.stderr) == (2, True)


def test_a_model_that_is_a_folder_needs_no_download(user: User) -> None:
    result = user.types("download", "--model", "tiny")
    assert (result.returncode, result.stdout.splitlines(), user.hub.calls) == (0, [str(TINY)], [])


def test_a_folder_that_lacks_files_has_exit_code_3(user: User) -> None:
    folder = Path(shutil.copytree(TINY, user.home / "copy"))
    (folder / "vae" / "config.json").unlink()
    result = user.types("download", "--model", folder)
    assert (result.returncode, "vae/config.json" in result.stderr) == (3, True)


@in_a_process
def test_ctrl_c_has_exit_code_130_and_the_next_run_continues(user: User) -> None:
    user.hub.break_after, user.hub.stall = (lambda count: MB), True
    arguments = ["download", "--model", str(user.preset())]
    process = user.starts(*arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _until(lambda: len([size for size in user.part_sizes() if size >= MB]) == 3, process)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert (process.returncode, "the same command resumes" in said) == (130, True), said
    before = len(user.hub.calls)
    user.hub.break_after = lambda count: None
    assert user.types(*arguments).returncode == 0
    asked = [call.first_byte for call in user.hub.calls[before:] if call.host == "localhost"]
    assert len([first for first in asked if first >= MB]) == 3


@in_a_process
def test_on_a_terminal_the_lines_fit_in_80_columns(user: User) -> None:
    screen, terminal = pty.openpty()
    user.hub.break_after = lambda count: MB if count > 5 * MB else None  # so that it takes a second
    arguments = ["download", "--model", "someone/tiny", "--accept-licence"]
    process = user.starts(*arguments, stdout=subprocess.DEVNULL, stderr=terminal)
    os.close(terminal)
    shown = _all_of(screen)
    assert process.wait() == 0
    assert "downloading" in shown and "left" in shown
    lines = shown.replace("\r", "\n").split("\n")
    assert [line for line in map(_visible, lines) if len(line) > 80] == []


@in_a_process  # ffmpeg
def test_afterwards_a_video_is_made_offline(owner: User) -> None:
    size = ["--size", "144*80", "--num-frames", "5", "--num-inference-steps", "2", "--seed", "7", "--profile", "cpu"]
    model = ["--model", owner.preset(), "--output", "a.mp4"]
    result = owner.types("generate", "a red circle moving right", *size, *model, HF_HUB_OFFLINE="1")
    assert result.returncode == 0, result.stderr


def test_generate_does_not_download_under_a_licence_that_was_not_accepted(user: User) -> None:
    result = user.types("generate", "a cat", "--model", "hunyuan-video", "--profile", "cpu")
    assert (result.returncode, user.hub.calls) == (2, [])
    assert "hunyuan-local download --model hunyuan-video --accept-licence" in result.stderr


# models


def test_the_presets_are_listed_without_a_network(owner: User) -> None:
    assert {"fast-hunyuan", "hunyuan-video", "tiny"} <= owner.listed.keys()


def test_the_built_in_model_can_be_loaded(owner: User) -> None:
    tiny = owner.listed["tiny"]
    assert (tiny["loadable"], tiny["complete"], tiny["folder"], tiny["licence"]) == (True, True, str(TINY), None)
    assert 12 * MB < tiny["size_bytes"] < 13 * MB


def test_a_model_that_is_not_here_comes_with_the_command(owner: User) -> None:
    model = owner.listed["hunyuan-video"]
    assert (model["loadable"], model["folder"], model["size_bytes"]) == (False, None, 0)
    assert "hunyuan-local download --model hunyuan-video" in model["problem"]


def test_an_accepted_licence_is_reported(owner: User) -> None:
    assert owner.listed["hunyuan-video"]["licence"]["accepted"] is True


def test_a_licence_that_was_not_accepted_is_reported(user: User) -> None:
    assert user.models()["hunyuan-video"]["licence"]["accepted"] is False


def test_what_else_is_in_the_cache_is_listed(owner: User) -> None:
    model = owner.listed["someone/tiny"]
    assert (model["kind"], model["folder"], model["loadable"]) == ("cache", str(owner.snapshot), True)


def test_another_revision_in_the_cache_is_named(user: User) -> None:
    user.types("download", "--model", "someone/tiny", "--revision", "refs/pr/1", "--accept-licence")
    assert user.models()["someone/tiny"]["revision"] == "refs/pr/1"


def test_an_unfinished_download_says_what_it_lacks_and_what_it_takes(user: User) -> None:
    user.types("download", "--model", "someone/tiny", "--accept-licence")
    link = user.snapshot / "vae" / "diffusion_pytorch_model.safetensors"
    blob = link.resolve()
    blob.rename(f"{blob}.part")
    model = user.models()["someone/tiny"]
    assert (model["loadable"], model["missing"]) == (False, ["vae/*.safetensors"])
    assert 12 * MB < model["size_bytes"] < 13 * MB


def test_checkpoints_of_other_pipelines_in_the_cache_are_not_listed(user: User) -> None:
    snapshot = user.home / "hub" / "models--someone--else" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    assert "someone/else" not in user.models()


def test_a_folder_of_checkpoints_is_listed(user: User) -> None:
    copies = [Path(shutil.copytree(TINY, user.home / "models" / name)) for name in ("a", "b")]
    (copies[0] / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    models = user.models(user.home / "models")
    assert [models[str(copy)]["problem"] for copy in copies] == [
        "is a FluxPipeline, not a HunyuanVideoPipeline or HunyuanVideoImageToVideoPipeline",
        "",
    ]


def test_a_damaged_index_is_a_problem_and_no_crash(user: User) -> None:
    folder = Path(shutil.copytree(TINY, user.home / "copy"))
    (folder / "vae" / "model.safetensors.index.json").write_text("{ damaged")
    assert user.models(folder)[str(folder)]["missing"] == ["vae/model.safetensors.index.json (damaged)"]


def test_a_folder_without_a_checkpoint_has_exit_code_2(user: User) -> None:
    result = user.types("models", user.home)
    assert (result.returncode, "model_index.json" in result.stderr) == (2, True)


def test_the_list_for_people_says_state_size_place_and_licence(owner: User) -> None:
    shown = owner.types("models").stdout
    wanted = ("tiny: ready", "12.1 MB", str(TINY), "December 3, 2024: accepted", "hunyuan-video: not downloaded")
    assert [words for words in wanted if words not in shown] == []


@in_a_process
def test_listing_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom hunyuan_local.cli.main import group\n"
        "group.main(['models', '--json'], standalone_mode=False)\nassert 'torch' not in sys.modules"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _until(met: Callable[[], bool], process: subprocess.Popen) -> None:
    """Wait for another process; the test's time limit ends a wait without success."""
    while not met():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def _all_of(screen: int) -> str:
    shown = b""
    while True:
        try:
            piece = os.read(screen, 65536)
        except OSError:  # the other end is closed
            return shown.decode()
        shown += piece


def _visible(line: str) -> str:
    """The text without terminal control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line)
