"""Rewriting as part of generating a video: locally, at a service, in the provenance, and in a replay."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from chat_server import ChatServer
from hosted_settings import QUICK
from scribe import ANSWERS, PROMPT
from standin import StandIn

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.hosted.open_tasks import OpenTasks, fingerprint
from hunyuan_local.backends.hosted.wavespeed import WaveSpeedBackend
from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.config import RewriteConfig
from hunyuan_local.errors import GenerationCancelledError, OutputExistsError, RequestLossError, RewriteError
from hunyuan_local.provenance import read_provenance
from hunyuan_local.schema import GenerationRequest, GenerationResult


@pytest.fixture
def request_(small_request: GenerationRequest) -> GenerationRequest:
    return small_request.replace(prompt=PROMPT, rewrite="normal")


@pytest.fixture
def context(scribe: Path, tmp_path: Path) -> GenerationContext:
    return GenerationContext(tmp_path / "clip.mp4", rewriting=RewriteConfig(model_id=str(scribe)))


@pytest.fixture(scope="module")
def made(
    starts_process: None, tiny: LocalBackend, scribe: Path, tmp_path_factory: pytest.TempPathFactory
) -> GenerationResult:
    """A video whose prompt was rewritten here, for all tests that inspect it."""
    request = GenerationRequest(
        prompt=PROMPT, rewrite="normal", width=144, height=80, num_frames=5, num_inference_steps=2, seed=7
    )
    path = tmp_path_factory.mktemp("made") / "clip.mp4"
    return tiny.generate(request, GenerationContext(path, rewriting=RewriteConfig(model_id=str(scribe))))


def test_the_file_says_both_prompts(made: GenerationResult) -> None:
    said = read_provenance(made.path).request
    assert (said.original_prompt, said.prompt) == (PROMPT, ANSWERS["normal", PROMPT])


def test_the_result_says_both_prompts_how_long_it_took_and_by_whom(made: GenerationResult, scribe: Path) -> None:
    assert (made.request.original_prompt, made.request.prompt) == (PROMPT, ANSWERS["normal", PROMPT])
    assert 0 < made.timings.rewrite_s < made.timings.total_s
    assert any(str(scribe) in note for note in made.notes)


def test_the_frames_are_those_of_the_rewritten_prompt(made: GenerationResult, tiny, request_, tmp_path: Path) -> None:
    plain = request_.replace(prompt=ANSWERS["normal", PROMPT], rewrite=None)
    expected = tiny.generate(plain, GenerationContext(tmp_path / "plain.mp4"))
    assert made.provenance["frames_sha256"] == expected.provenance["frames_sha256"]


def test_what_was_rewritten_is_made_again_without_a_language_model(made: GenerationResult, tiny, tmp_path) -> None:
    said = read_provenance(made.path).request
    nobody = RewriteConfig(model_id=str(tmp_path / "gone"))
    again = tiny.generate(said, GenerationContext(tmp_path / "again.mp4", rewriting=nobody))
    assert again.provenance["frames_sha256"] == made.provenance["frames_sha256"]


def test_a_failure_ends_the_generation_before_anything_is_made(tiny, request_, context) -> None:
    with pytest.raises(RewriteError):
        tiny.generate(request_.replace(prompt="a blue square"), context)
    assert not context.output.exists()


@pytest.mark.usefixtures("starts_process")
def test_where_the_policy_allows_it_the_original_is_used_and_that_is_reported(tiny, request_, scribe, tmp_path) -> None:
    lenient = RewriteConfig(model_id=str(scribe), on_failure="use-original")
    result = tiny.generate(
        request_.replace(prompt="a blue square"), GenerationContext(tmp_path / "clip.mp4", rewriting=lenient)
    )
    assert result.request.prompt == result.request.original_prompt == "a blue square"
    assert any("could not be rewritten" in note for note in result.notes)


@pytest.mark.usefixtures("starts_process")
def test_a_prompt_that_an_earlier_attempt_has_left_as_it_is_is_reported_too(tiny, request_, tmp_path: Path) -> None:
    nobody = RewriteConfig(model_id=str(tmp_path / "gone"))
    left = request_.replace(original_prompt=PROMPT)
    result = tiny.generate(left, GenerationContext(tmp_path / "clip.mp4", rewriting=nobody))
    assert any("left the prompt unchanged" in note for note in result.notes)


@pytest.mark.usefixtures("starts_process")
def test_without_being_asked_for_nothing_is_rewritten(tiny, small_request, tmp_path: Path) -> None:
    nobody = RewriteConfig(model_id=str(tmp_path / "gone"))
    result = tiny.generate(small_request, GenerationContext(tmp_path / "clip.mp4", rewriting=nobody))
    assert result.request.original_prompt is None and result.timings.rewrite_s == 0


def test_a_name_that_is_taken_is_refused_before_a_language_model_is_loaded(tiny, request_, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"something")
    nobody = RewriteConfig(model_id=str(tmp_path / "gone"))
    with pytest.raises(OutputExistsError):
        tiny.generate(request_, GenerationContext(tmp_path / "clip.mp4", rewriting=nobody))


@pytest.fixture
def hosted(standin: StandIn, tmp_path: Path) -> WaveSpeedBackend:
    return WaveSpeedBackend(standin.key, standin.url, pacing=QUICK, open_tasks=OpenTasks(tmp_path / "ledger"))


@pytest.mark.usefixtures("starts_process")
def test_a_service_is_sent_the_rewritten_prompt(hosted, standin: StandIn, chat: ChatServer, tmp_path: Path) -> None:
    context = GenerationContext(tmp_path / "clip.mp4", rewriting=RewriteConfig(endpoint=chat.url))
    result = hosted.generate(GenerationRequest(prompt=PROMPT, rewrite="master"), context)
    assert [sent.body["prompt"] for sent in standin.submissions] == [chat.answer]
    assert (result.request.original_prompt, result.request.prompt) == (PROMPT, chat.answer)


def test_what_a_service_cannot_hold_is_refused_before_anybody_rewrites(hosted, chat: ChatServer, tmp_path) -> None:
    context = GenerationContext(tmp_path / "clip.mp4", rewriting=RewriteConfig(endpoint=chat.url))
    with pytest.raises(RequestLossError):
        hosted.generate(GenerationRequest(prompt=PROMPT, num_frames=5, rewrite="master"), context)
    assert not chat.calls


@pytest.mark.usefixtures("starts_process")
def test_an_open_task_of_the_same_command_is_continued_whatever_would_be_written_now(
    hosted, standin: StandIn, chat: ChatServer, tmp_path: Path
) -> None:
    rewriting, request = RewriteConfig(endpoint=chat.url), GenerationRequest(prompt=PROMPT, rewrite="master")
    stopped = GenerationContext(tmp_path / "clip.mp4", rewriting=rewriting, keep_remote=True)
    stopped.on_progress = lambda reported: stopped.cancel.set() if reported.stage == "queue" else None
    with pytest.raises(GenerationCancelledError):
        hosted.generate(request, stopped)
    chat.answer = "another prompt this time"
    hosted.generate(request, GenerationContext(tmp_path / "clip.mp4", rewriting=rewriting))
    assert (len(standin.submissions), len(chat.asked)) == (1, 1)


@pytest.mark.usefixtures("starts_process")
def test_a_task_that_is_settled_while_this_one_waits_for_the_lock_is_made_anew_and_rewritten(
    hosted, standin: StandIn, chat: ChatServer, tmp_path: Path
) -> None:
    context = GenerationContext(tmp_path / "clip.mp4", rewriting=RewriteConfig(endpoint=chat.url))
    request = GenerationRequest(prompt=PROMPT, rewrite="master")
    mark = fingerprint(hosted.name, hosted.base_url, request, context.output)
    jobs, seen = hosted._open_tasks.jobs, []

    def settled_after_the_first_look() -> list[object]:
        seen.append(1)
        return [SimpleNamespace(fingerprint=mark)] if len(seen) == 1 else jobs()

    hosted._open_tasks.jobs = settled_after_the_first_look
    hosted.generate(request, context)
    assert [sent.body["prompt"] for sent in standin.submissions] == [chat.answer]


@pytest.mark.usefixtures("starts_process")
def test_a_context_that_is_used_again_says_nothing_of_the_request_before(
    tiny: LocalBackend, request_: GenerationRequest, context: GenerationContext
) -> None:
    tiny.generate(request_, context)
    context.overwrite = True
    plain = tiny.generate(request_.replace(rewrite=None), context)
    assert plain.timings.rewrite_s == 0 and not any("rewritten" in note for note in plain.notes)


@pytest.mark.usefixtures("starts_process")
def test_a_saved_state_continues_with_the_prompt_of_before(
    tiny: LocalBackend, request_: GenerationRequest, chat: ChatServer, tmp_path: Path
) -> None:
    rewriting, request = RewriteConfig(endpoint=chat.url), request_.replace(num_inference_steps=4)
    stopped = GenerationContext(tmp_path / "clip.mp4", checkpoint_dir=tmp_path / "states", rewriting=rewriting)
    stopped.on_progress = lambda now: stopped.cancel.set() if (now.stage, now.step) == ("denoise", 2) else None
    with pytest.raises(GenerationCancelledError):
        tiny.generate(request, stopped)
    chat.answer = "another prompt this time"
    result = tiny.generate(
        request, GenerationContext(tmp_path / "clip.mp4", checkpoint_dir=tmp_path / "states", rewriting=rewriting)
    )
    assert result.request.prompt == "a red ball rolls to the right over a black floor"
    assert result.timings.denoise_steps == 2


def test_another_prompt_of_a_rewritten_request_has_no_original() -> None:
    request = GenerationRequest(prompt="a red fox", original_prompt="a fox", rewrite="normal")
    assert request.replace(prompt="a cat").awaits_rewriting


@pytest.mark.usefixtures("starts_process")
def test_the_notes_of_one_video_are_not_those_of_the_next(tiny, request_, scribe, tmp_path: Path) -> None:
    context = GenerationContext(tmp_path / "clip.mp4", overwrite=True, rewriting=RewriteConfig(model_id=str(scribe)))
    tiny.generate(request_, context)
    again = tiny.generate(request_, context)
    assert sum("was rewritten in" in note for note in again.notes) == 1
