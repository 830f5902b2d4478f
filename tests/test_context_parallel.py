"""One video made by two processes: exact, stopped, taken up again, and what is left when a process dies."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.backends.multi_gpu.backend import ParallelBackend
from hunyuan_local.config import ContextParallel
from hunyuan_local.errors import GenerationCancelledError, RankFailedError
from hunyuan_local.planner.tiles import Tiles
from hunyuan_local.schema import GenerationRequest, Progress

SHORT = GenerationRequest(
    prompt="a red circle moving right on a black background", width=144, height=80, num_frames=5,
    num_inference_steps=6, seed=7,
)  # fmt: skip
# 175 image tokens, and three temporal tiles for two processes.
LONG = SHORT.replace(width=80, num_frames=25, num_inference_steps=3)


@pytest.fixture(scope="module")
def backend(starts_process: None) -> Iterator[ParallelBackend]:
    """Two processes on the CPU, started by the first test that needs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # sums in the same order as in this process
        made = ParallelBackend(ContextParallel(degree=2), "tiny", "cpu")
        yield made
        made.close()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch computes in one thread, as in the processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def at(stage: str, step: int, act: Callable[[], None]) -> Callable[[Progress], None]:
    """A progress callback that acts once, at this step of this stage."""
    todo = [act]

    def on_progress(progress: Progress) -> None:
        if todo and progress.stage == stage and progress.step >= step:
            todo.pop()()

    return on_progress


def interrupt() -> None:
    """What Ctrl-C does in the main thread."""
    raise KeyboardInterrupt


def stop_at(backend: ParallelBackend, request: GenerationRequest, folder: Path, stage: str, step: int) -> Path:
    """Cancel a video there; the state that is saved of it."""
    context = GenerationContext(folder / "video.mp4", checkpoint_dir=folder / "states", checkpoint_every=100)
    context.on_progress = at(stage, step, context.cancel.set)
    with pytest.raises(GenerationCancelledError):
        backend.generate(request, context)
    (state,) = (folder / "states").iterdir()
    return state


def saved_latents(state: Path) -> tuple[torch.Tensor, int]:
    """Latents, and how many steps they have behind them."""
    with safe_open(state, "pt") as file:
        return file.get_tensor("latents"), int(file.metadata()["step"])


def leftovers(folder: Path) -> list[str]:
    """Everything under a folder but the saved state."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and path.suffix != ".safetensors"]


def are_gone(pids: list[int], within_s: float = 20.0) -> bool:
    """Whether no process of these numbers is left, soon."""
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        if not any(_is_alive(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_video_stopped_in_the_decoding_goes_on_to_the_frames_of_one_process(
    backend: ParallelBackend, tiny: LocalBackend, tmp_path: Path, one_thread: None
) -> None:
    from hunyuan_local.pipeline.decode import decode

    state = stop_at(backend, LONG, tmp_path, "decode", 0)
    latents, step = saved_latents(state)
    assert (step, leftovers(tmp_path)) == (3, [])

    result = backend.generate(LONG, GenerationContext(tmp_path / "video.mp4", checkpoint_dir=state.parent))

    # From the very same latents, one process alone.
    model, tiling = tiny.load(), Tiles(tiny.config, tiny.resolve(LONG)).choose(tiny.load().profile, None)
    digest = hashlib.sha256()
    for frames in decode(model, latents, tiling):
        digest.update(frames.tobytes())
    assert result.provenance["frames_sha256"] == digest.hexdigest()
    assert result.timings.denoise_steps == 0


def test_a_video_taken_up_again_has_the_frames_of_one_made_at_once(backend: ParallelBackend, tmp_path: Path) -> None:
    whole = backend.generate(SHORT, GenerationContext(tmp_path / "whole.mp4"))
    notes: list[str] = []

    state = stop_at(backend, SHORT, tmp_path, "denoise", 1)
    step = saved_latents(state)[1]
    again = GenerationContext(tmp_path / "video.mp4", checkpoint_dir=state.parent, on_note=notes.append)
    resumed = backend.generate(SHORT, again)

    assert 1 <= step < 6
    assert [note for note in notes if note.startswith(f"resuming after step {step}")]
    assert resumed.provenance["frames_sha256"] == whole.provenance["frames_sha256"]
    assert not state.exists()


def test_ctrl_c_saves_the_state_and_leaves_the_processes_for_the_next_video(
    backend: ParallelBackend, tmp_path: Path
) -> None:
    context = GenerationContext(tmp_path / "video.mp4", checkpoint_dir=tmp_path / "states", checkpoint_every=100)
    context.on_progress = at("denoise", 1, interrupt)
    pids = backend.pids
    with pytest.raises(KeyboardInterrupt):
        backend.generate(SHORT, context)

    assert len(list((tmp_path / "states").iterdir())) == 1
    assert leftovers(tmp_path) == []
    assert backend.pids == pids and all(map(_is_alive, pids))


def test_a_video_cancelled_at_once_makes_no_step(backend: ParallelBackend, tmp_path: Path) -> None:
    backend.load()
    steps: list[int] = []
    context = GenerationContext(tmp_path / "video.mp4", on_progress=lambda progress: steps.append(progress.step))
    context.cancel.set()
    with pytest.raises(GenerationCancelledError, match="before the first step"):
        backend.generate(SHORT, context)
    assert max(steps) == 0


def test_the_file_says_that_it_was_made_together(backend: ParallelBackend, tmp_path: Path) -> None:
    progress: list[Progress] = []
    result = backend.generate(
        SHORT.replace(seed=8), GenerationContext(tmp_path / "a.mp4", on_progress=progress.append, preview_every=2)
    )
    assert result.provenance["runtime"]["context_parallel"] == {"degree": 2, "mode": "ulysses"}
    assert [each.step for each in progress if each.stage == "denoise"] == [0, 1, 2, 3, 4, 5, 6]
    assert {each.preview for each in progress} - {None} == {tmp_path / "a.mp4.preview.png"}
    assert backend.device == "2 x cpu, 1 threads"


def test_a_process_killed_while_denoising_ends_all_and_the_next_run_goes_on(
    backend: ParallelBackend, tmp_path: Path
) -> None:
    notes: list[str] = []
    context = GenerationContext(tmp_path / "video.mp4", checkpoint_dir=tmp_path / "states", checkpoint_every=1)
    context.on_note = notes.append
    backend.close()  # those of the tests before end by themselves, and say what they have covered
    backend.load()
    pids = backend.pids
    context.on_progress = at("denoise", 1, lambda: os.kill(pids[1], signal.SIGKILL))
    with pytest.raises(RankFailedError, match=r"rank 1 of 2 was killed by SIGKILL.*--checkpoint-dir"):
        backend.generate(LONG, context)
    assert are_gone(pids)
    assert leftovers(tmp_path) == []

    # The next run starts new processes and goes on; now the leader dies in the decoding, with a file begun.
    context.on_progress = at("decode", 1, lambda: os.kill(backend.pids[0], signal.SIGKILL))
    with pytest.raises(RankFailedError, match=r"rank 0 of 2 was killed by SIGKILL"):
        backend.generate(LONG, context)
    assert [note for note in notes if note.startswith("resuming after step")]
    assert backend.pids == []
    assert leftovers(tmp_path) == []
    assert saved_latents(next((tmp_path / "states").iterdir()))[1] == 3
