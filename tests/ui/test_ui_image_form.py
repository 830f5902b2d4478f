"""The form of a model whose videos begin with an image: submitting, hiding, reusing, and the code."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from image_files import CLEAR, PICTURE
from server_stage import CLIP, MODEL, TIMINGS, Stage

from hunyuan_local.cli.commands.generate import command as generate
from hunyuan_local.errors import InvalidRequestError
from hunyuan_local.images import check_image
from hunyuan_local.schema import GenerationRequest
from hunyuan_local.ui import cards, image_field
from hunyuan_local.ui.actions import Studio
from hunyuan_local.ui.form import sentences
from hunyuan_local.ui.snippets import Snippet, write_snippets
from hunyuan_local.wires import openai, wavespeed_image
from hunyuan_local.wires.sent_image import SentFile

OF_IMAGES = MODEL.model_copy(update={"name": "toy", "takes_image": True})
IMAGE = check_image(CLEAR)
SMALL = {"prompt": "a fox", "size": "64x48", "num_frames": "5", "num_inference_steps": "2", "seed": "3"}


@pytest.fixture
def studio(make_studio: Callable[..., Studio]) -> Studio:
    """A studio for images, with text to video as its other model."""
    return make_studio(model=OF_IMAGES, models=("tiny",))


@pytest.fixture
def fields(studio: Studio) -> dict[str, str]:
    """The form with an uploaded image, as its fields begin."""
    return studio.first_fields() | SMALL | {"image": studio.images.keep(CLEAR).sha256}


def test_the_job_begins_with_the_uploaded_image(studio: Studio, fields: dict[str, str]) -> None:
    request = studio.submit(fields).request
    assert (request.image, request.image_fit) == (IMAGE, None)
    assert studio.service.folder.with_image(request).image.content() == CLEAR


def test_the_chosen_fit_is_that_of_the_job(studio: Studio, fields: dict[str, str]) -> None:
    assert studio.submit(fields | {"image_fit": "pad"}).request.image_fit == "pad"


def test_without_its_image_nothing_is_submitted(studio: Studio, fields: dict[str, str]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        studio.submit(fields | {"image": ""})
    assert sentences(caught.value)[0].startswith("Image: toy makes videos that begin with an image; give one")
    assert studio.unfinished() == 0


@pytest.mark.parametrize("digest", ["0" * 64, "../../jobs.sqlite3", "/etc/passwd", "x\0"])
def test_an_image_that_is_not_kept_is_refused(studio: Studio, fields: dict[str, str], digest: str) -> None:
    for do in (studio.submit, studio.outlook, lambda given: studio.snippets(given, "")):
        with pytest.raises(InvalidRequestError) as caught:
            do(fields | {"image": digest})
        assert sentences(caught.value) == ["Image is not kept on the server any more; choose it again."]


def test_a_hidden_image_is_not_that_of_a_text_to_video_job(studio: Studio, fields: dict[str, str]) -> None:
    request = studio.submit(fields | {"model": "tiny", "image_fit": "pad"}).request
    assert (request.image, request.image_fit) == (None, None)


def test_settings_that_are_taken_over_have_the_kept_image(studio: Studio, fields: dict[str, str]) -> None:
    job = studio.submit(fields | {"image_fit": "stretch"})
    assert studio.submit(studio.take_over(job.job_id)).request == job.request


def test_after_a_restart_a_kept_image_is_found(studio: Studio, fields: dict[str, str]) -> None:
    again = Studio(studio.service).images.find(fields["image"])
    assert (again.described(), again.content()) == (IMAGE.described(), CLEAR)


def test_the_size_is_left_to_the_image_where_the_model_has_sizes_for_it(make_studio: Callable[..., Studio]) -> None:
    sizes = ((96, 64), (64, 96))
    studio = make_studio(model=OF_IMAGES.model_copy(update={"image_sizes": sizes}))
    fields = studio.first_fields() | {"prompt": "a fox", "image": studio.images.keep(CLEAR).sha256}
    request = studio.submit(fields).request
    assert fields["size"] == "" and (request.width, request.height) == (64, 96)


# Cards


def test_the_field_says_size_format_and_what_was_changed() -> None:
    html = image_field.field(IMAGE)
    assert f'src="image/{IMAGE.sha256}.jpg"' in html
    assert "64 x 96, PNG. The image&#x27;s transparent parts were put on white." in html


def test_the_field_says_which_size_the_image_gets() -> None:
    assert "An empty size becomes 80x144" in image_field.field(IMAGE, sizes=((144, 80), (80, 144)))


def test_a_problem_of_the_field_is_an_alert() -> None:
    assert 'role="alert">&lt;b&gt;</p>' in image_field.field(None, "<b>")


def test_a_finished_job_shows_its_image_and_fit(studio: Studio, stage: Stage, fields: dict[str, str]) -> None:
    job = studio.submit(fields | {"image_fit": "pad"})
    stage.store.claim("w", OF_IMAGES.identity, 30)
    stage.folder.video(job).write_bytes(CLIP)
    job = stage.store.get(job.job_id)
    made = {"seed": 3, "request": job.request.model_dump(mode="json"), "timings": TIMINGS}
    assert stage.store.succeed(job, made)
    html = cards.stage(studio.show(job.job_id))
    assert f'src="image/{IMAGE.sha256}.jpg"' in html and "Fit: pad." in html


def test_the_gallery_shows_the_image_until_there_is_a_video(studio: Studio, fields: dict[str, str]) -> None:
    html = cards.gallery([studio.submit(fields)], 0, False, None, 0.0)
    assert f'src="image/{IMAGE.sha256}.jpg"' in html and "from an image" in html


# Code


def snippets(request: GenerationRequest) -> dict[str, Snippet]:
    found = write_snippets(request, base_url="http://127.0.0.1:8000", with_key=False, model=OF_IMAGES, profile="")
    return {snippet.title: snippet for snippet in found}


def test_the_command_line_names_a_file_for_the_image() -> None:
    text = snippets(GenerationRequest(prompt="a fox", image=IMAGE, image_fit="pad"))["Command line"].text
    about, call = text.split("\n", 1)
    flags = generate.make_context("generate", shlex.split(call.replace("\\\n", ""))[2:]).params
    assert about.startswith("# image.png") and IMAGE.sha256 in about
    assert (flags["image"], flags["image_fit"]) == ("image.png", "pad")


def test_python_opens_a_file_for_the_image() -> None:
    text = snippets(GenerationRequest(prompt="a fox", image=IMAGE))["Python"].text
    assert "    image='image.png',\n" in text and compile(text, "snippet", "exec")


@pytest.mark.parametrize("image", [IMAGE, None])
def test_no_code_contains_the_image_itself(image: object) -> None:
    for snippet in snippets(GenerationRequest(prompt="a fox", image=image)).values():
        assert len(snippet.text) < 2000 and (snippet.text or snippet.losses)


def curl(dialect: str) -> list[str]:
    request = GenerationRequest(prompt="@it's; type=a <fox", image=IMAGE, image_fit="pad", width=1280, height=720)
    about, call = snippets(request)[f"curl, {dialect} format"].text.split("\n", 1)
    assert about.startswith("# ")
    return shlex.split(call.partition("\n\n")[0].replace("\\\n", ""))


def test_openais_format_sends_the_file_in_a_form() -> None:
    words = curl("OpenAI's")
    assert words[words.index("--form") + 1] == "input_reference=@image.png"
    fields = [words[at + 1].split("=", 1) for at, word in enumerate(words) if word == "--form-string"]
    submission = openai.request_from_wire(dict(fields) | {"input_reference": SentFile("image.png", CLEAR)})
    assert (submission.request.prompt, submission.request.width) == ("@it's; type=a <fox", 1280)
    assert submission.image.fit == "pad"


def test_wavespeeds_format_names_an_address() -> None:
    words = curl("WaveSpeed's")
    assert words[1].endswith("/wavespeed-ai/hunyuan-video/i2v")
    body = json.loads(words[words.index("--data") + 1])
    assert body["image"] == "https://example.com/image.png"
    assert wavespeed_image.request_from_wire(body, relaxed=True).request.prompt == "@it's; type=a <fox"


def test_novitas_format_has_no_images() -> None:
    snippet = snippets(GenerationRequest(prompt="a fox", image=IMAGE))["curl, Novita's format"]
    assert snippet.text == "" and snippet.losses


# Gradio


def test_the_image_is_shown_for_a_model_that_takes_one_alone(make_visitor: Callable[..., TestClient]) -> None:
    for model, is_shown in ((MODEL, False), (OF_IMAGES, True)):
        parts = make_visitor(model=model).get("/ui/config").json()["components"]
        group = next(part for part in parts if part["props"].get("elem_id") == "hl-image")
        assert group["props"]["visible"] is is_shown


def test_pictures_are_what_a_browser_may_see(studio: Studio) -> None:
    assert studio.images.thumbnail(studio.images.keep(PICTURE).sha256).startswith(b"\xff\xd8")
