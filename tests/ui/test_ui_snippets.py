"""The form as code: run by a shell, Python and the command line, it gives the same request."""

from __future__ import annotations

import json
import shlex
import subprocess

import pytest
from server_stage import MODEL

from hunyuan_local.cli.commands.generate import command as generate
from hunyuan_local.cli.shared.options import request_from
from hunyuan_local.config import LoraConfig
from hunyuan_local.schema import GenerationRequest
from hunyuan_local.ui.snippets import Snippet, write_snippets
from hunyuan_local.wires import novita, openai, wavespeed

NASTY = 'it\'s a "fox" & $HOME `id` \\ é\n!x'
REQUEST = GenerationRequest(
    prompt=NASTY, width=1280, height=720, num_frames=85, num_inference_steps=30, seed=7, guidance_scale=6.0,
    negative_prompt="--rain", true_cfg_scale=2.0,
)  # fmt: skip
TITLES = {
    wavespeed: "curl, WaveSpeed's format",
    novita: "curl, Novita's format",
    openai: "curl, OpenAI's format",
}
DIALECTS = pytest.mark.parametrize("dialect", TITLES, ids=lambda dialect: dialect.NAME)


def snippets(request: GenerationRequest = REQUEST, with_key: bool = True, profile: str = "") -> dict[str, Snippet]:
    found = write_snippets(request, base_url="http://127.0.0.1:8000", with_key=with_key, model=MODEL, profile=profile)
    return {snippet.title: snippet for snippet in found}


def calls_in(script: str) -> list[list[str]]:
    """The arguments of each call of curl in a script, as a real shell passes them."""
    shell = f"curl() {{ printf '%s\\0' \"$@\"; printf '\\1'; }}\nAPI_KEY=secret\nID=x-1\n{script}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, check=True)
    return [call.decode().split("\0")[:-1] for call in done.stdout.split(b"\1")[:-1]]


@pytest.mark.usefixtures("starts_process")
@DIALECTS
def test_curl_sends_the_body_of_the_dialect(dialect: object) -> None:
    submit, _ = calls_in(snippets()[TITLES[dialect]].text)
    assert submit[0] == f"http://127.0.0.1:8000{dialect.SUBMIT_PATH}"
    assert json.loads(submit[submit.index("--data") + 1]) == dialect.request_to_wire(REQUEST, allow_loss=True).body


@pytest.mark.usefixtures("starts_process")
@DIALECTS
def test_curl_then_asks_for_the_job(dialect: object) -> None:
    _, look = calls_in(snippets()[TITLES[dialect]].text)
    where = {
        wavespeed: wavespeed.result_path("x-1"), novita: f"{novita.RESULT_PATH}?task_id=x-1",
        openai: openai.result_path("x-1"),
    }  # fmt: skip
    assert look[0] == f"http://127.0.0.1:8000{where[dialect]}"


@pytest.mark.usefixtures("starts_process")
@DIALECTS
def test_the_key_comes_from_a_variable_of_the_shell(dialect: object) -> None:
    for call in calls_in(snippets()[TITLES[dialect]].text):
        assert "Authorization: Bearer secret" in call


@DIALECTS
def test_without_keys_none_is_shown(dialect: object) -> None:
    assert "Authorization" not in snippets(with_key=False)[TITLES[dialect]].text


@pytest.mark.parametrize("title", ["Python", "Command line"])
def test_without_the_server_its_language_model_must_be_named_again(title: str) -> None:
    request = GenerationRequest(prompt="a fox", rewrite="master")
    assert "--rewrite-endpoint" in snippets(request)[title].losses[0]
    assert snippets(request.replace(rewrite="off"))[title].losses == ()


@pytest.mark.parametrize("title", ["Python", "Command line"])
def test_without_the_server_its_loras_must_be_given_again(title: str) -> None:
    model = MODEL.model_copy(update={"lora": (LoraConfig(path="my style.safetensors", scale=0.5),)})
    found = write_snippets(REQUEST, base_url="http://127.0.0.1:8000", with_key=False, model=model, profile="")
    losses = next(snippet.losses for snippet in found if snippet.title == title)
    assert "--lora 'my style.safetensors=0.5'" in losses[0]


def test_what_is_left_open_is_the_models_and_not_the_dialects() -> None:
    found = snippets(GenerationRequest(prompt="a fox"))
    assert '"num_inference_steps": 8' in found[TITLES[wavespeed]].text
    assert "num_frames=17 is changed to 85" in found[TITLES[novita]].losses[0]


def test_what_a_dialect_cannot_hold_is_named() -> None:
    losses = " ".join(snippets()[TITLES[wavespeed]].losses)
    assert "num_frames=85 is omitted" in losses and "guidance_scale=6.0 is omitted" in losses


def test_what_a_dialect_holds_is_no_loss() -> None:
    assert snippets()[TITLES[openai]].losses == ()


def test_a_prompt_that_a_dialect_cannot_hold_gives_its_reason_and_no_code() -> None:
    found = snippets(REQUEST.replace(prompt="x" * 3000))[TITLES[novita]]
    assert found.text == "" and "2000" in found.losses[0]


def test_python_makes_the_same_request() -> None:
    code = snippets()["Python"].text
    names: dict[str, object] = {}
    exec(code[: code.index("result = ")], names)
    assert names["request"] == REQUEST
    assert names["backend"].config.name == "tiny"


@pytest.mark.parametrize("prompt", [NASTY, "--help", "-x"])
def test_the_command_line_makes_the_same_request(prompt: str) -> None:
    request = REQUEST.replace(prompt=prompt)
    words = shlex.split(snippets(request, profile="cpu")["Command line"].text.replace("\\\n", ""))
    assert words[:2] == ["hunyuan-local", "generate"]
    flags = generate.make_context("generate", words[2:]).params
    assert (flags["model"], flags["profile"]) == ("tiny", "cpu")
    assert request_from(flags.pop("prompt"), flags.pop("size"), flags) == request
