"""API keys and URLs of the services."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from hosted_settings import REQUEST
from standin import StandIn

from hunyuan_local import errors
from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.hosted.backend import HostedBackend
from hunyuan_local.backends.hosted.client import Pacing


@pytest.mark.usefixtures("starts_process")
def test_the_key_comes_from_the_environment(
    make: Callable[..., HostedBackend], context: GenerationContext, standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make(api_key=None)
    monkeypatch.setenv(backend.key_variable, standin.key)
    assert backend.generate(REQUEST, context).path.exists()


def test_the_address_comes_from_the_environment(
    make: Callable[..., HostedBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(make().url_variable, "http://127.0.0.1:9/")
    assert make(base_url=None).base_url == "http://127.0.0.1:9"


def test_an_address_that_is_given_counts_more_than_the_environments(
    make: Callable[..., HostedBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(make().url_variable, "http://127.0.0.1:9/")
    assert make(base_url="http://127.0.0.1:8").base_url == "http://127.0.0.1:8"


def test_without_a_key_nothing_is_reported_to_be_submitted(
    make: Callable[..., HostedBackend], context: GenerationContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, reported = make(api_key=None), []
    monkeypatch.delenv(backend.key_variable, raising=False)
    context.on_progress = context.on_note = reported.append
    with pytest.raises(errors.AuthenticationError):
        backend.generate(REQUEST, context)
    assert reported == [] and context.job_id is None


def test_a_missing_key_names_both_remedies(
    make: Callable[..., HostedBackend], context: GenerationContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make(api_key=None)
    monkeypatch.delenv(backend.key_variable, raising=False)
    with pytest.raises(errors.AuthenticationError, match=f"{backend.key_variable}.*--api-key"):
        backend.generate(REQUEST, context)


def test_a_wrong_key_is_refused(make: Callable[..., HostedBackend], context: GenerationContext) -> None:
    with pytest.raises(errors.AuthenticationError, match="check the key"):
        make(api_key="another-key").generate(REQUEST, context)


@pytest.fixture
def all_that_is_said(
    backend: HostedBackend, context: GenerationContext, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> Callable[[], str]:  # fmt: skip
    """Tries to generate a video, and collects everything reported, printed, logged and stored."""

    def make() -> str:
        caplog.set_level(logging.DEBUG)
        said: list[str] = []
        context.on_note = said.append
        try:
            said.append(backend.generate(REQUEST, context).model_dump_json())
        except errors.HostedError as error:
            said.append(str(error))
        stored = "".join(path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file())
        return "".join(said) + caplog.text + stored + "".join(capfd.readouterr()) + repr(backend)

    return make


@pytest.mark.parametrize("fault", ["submit-401", "submit-drop", "poll-html", "task-failed", "file-403"])
def test_the_key_is_nowhere_but_in_the_header(
    all_that_is_said: Callable[[], str], standin: StandIn, fault: str
) -> None:
    standin.inject(fault, 2)
    assert standin.key not in all_that_is_said()


@pytest.mark.usefixtures("starts_process")
def test_nor_is_it_where_a_video_is_made(all_that_is_said: Callable[[], str], standin: StandIn) -> None:
    assert standin.key not in all_that_is_said()


@pytest.mark.parametrize(
    "url",
    ["api.wavespeed.ai", "ftp://host", "http://", "http://host:99999", "http://h?x=1", "http://h#x", "http://a..b"],
)
def test_what_is_no_address_is_refused(make: Callable[..., HostedBackend], url: str) -> None:
    with pytest.raises(errors.ConfigError, match="base_url"):
        make(base_url=url)


@pytest.mark.parametrize("url", ["https://me:sesame@host", "https://me:sesame@host?x=1", "http://me:sesame@h:99999"])
def test_a_password_in_an_address_is_refused_unsaid(make: Callable[..., HostedBackend], url: str) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        make(base_url=url)
    assert "sesame" not in str(caught.value)


def test_an_unencrypted_address_elsewhere_is_noted(
    make: Callable[..., HostedBackend], context: GenerationContext
) -> None:
    notes: list[str] = []
    context.on_note = notes.append
    with pytest.raises(errors.HostedError):
        make(base_url="http://service.invalid", pacing=Pacing(answer_s=2)).generate(REQUEST, context)
    assert [note for note in notes if "unencrypted" in note]
