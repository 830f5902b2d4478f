"""Layout and events of the page, in Gradio; :mod:`hunyuan_local.ui.actions` implements the actions.

Importing this module imports Gradio. Events use Gradio's own queue: they are short, since videos wait in the job store.
"""

# Gradio needs event annotations to be classes, so no "from __future__ import annotations" here.
import logging
import time
from collections.abc import Sequence
from html import escape
from typing import Any, get_args

import gradio as gr

from ..errors import FieldProblem, HunyuanLocalError, InvalidRequestError
from ..images import DEFAULT_FIT, ImageFit
from ..schema import RewriteMode
from ..server.error_answers import SEE_LOG
from . import cards, image_field
from .actions import Studio
from .components import NUMBERS, info, number_field
from .form import LABELS, NAMES, SIZES, sentences

logger = logging.getLogger(__name__)

_BUSY_S, _IDLE_S = 1.0, 4.0  # polling intervals for the jobs
_PLAIN = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
# Forwards clicks on the buttons of cards.py: a select event whose data is the action and the job.
_PASS_ON = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-act]');
  if (!button || button.disabled) return;
  if (button.dataset.confirm && !window.confirm(button.dataset.confirm)) return;
  trigger('select', {act: button.dataset.act, job: button.dataset.job || ''});
});
"""
# On a phone, the video is below the form: scroll to it.
_SHOW_STAGE = """() => {
  if (document.querySelector('#hl-problems [role=alert]')) return;
  if (matchMedia('(max-width: 900px)').matches) document.getElementById('hl-result')?.scrollIntoView();
}"""


def build_page(studio: Studio) -> gr.Blocks:
    """Build the page for a studio."""
    return _Page(studio).blocks


class _Page:
    """The components and their events."""

    def __init__(self, studio: Studio):
        self.studio = studio
        self.fields: dict[str, Any] = {}
        with gr.Blocks(title="hunyuan-local", analytics_enabled=False) as self.blocks:
            gr.HTML(_head(studio))
            with gr.Row(equal_height=False):
                with gr.Column(scale=5, min_width=300):
                    self._add_form()
                with gr.Column(scale=6, min_width=300, elem_id="hl-result"):
                    self._add_result()
            # The watched job, the open gallery page, the state that was sent last, the offered modes.
            self.watched, self.page, self.sent, self.modes = gr.State(None), gr.State(0), gr.State({}), gr.State(())
            self.model_before = gr.State(studio.own.name)
            self.draft = gr.BrowserState(None, storage_key="hunyuan-local-form", secret="form")  # survives a reload
            self.timer = gr.Timer(_BUSY_S)
            self._add_events()

    # Layout

    def _add_form(self) -> None:
        studio, first = self.studio, self.studio.first_fields()
        defaults = studio.defaults(studio.own.name)
        self.fields["prompt"] = gr.Textbox(
            label=LABELS["prompt"], lines=4, max_lines=10, placeholder="Describe the video", elem_id="hl-prompt",
        )  # fmt: skip
        self._add_image_field()
        with gr.Row():
            self.fields["model"] = gr.Dropdown(
                studio.model_choices(), value=first["model"], label=LABELS["model"], min_width=130
            )
            self.fields["size"] = gr.Dropdown(
                SIZES, value=first["size"], label=LABELS["size"], allow_custom_value=True, min_width=130
            )
        for row in (("num_frames", "num_inference_steps"), ("guidance_scale", "flow_shift", "seed")):
            with gr.Row():
                for name in row:
                    self.fields[name] = number_field(name, defaults)
        with gr.Accordion("More settings", open=False):
            self.fields["profile"] = gr.Dropdown(
                studio.profile_choices(()), value="", label=LABELS["profile"], info="Where the model's parts are kept, "
                "and in which precision. auto picks the fastest profile that fits.",
            )  # fmt: skip
            can = studio.service.config.can_rewrite
            self.fields["rewrite"] = gr.Radio(
                get_args(RewriteMode) if can or first["rewrite"] != "off" else ("off",),
                value=first["rewrite"],
                label=LABELS["rewrite"],
                info=info("rewrite")
                if can
                else "Requires a server started with --rewrite-model or --rewrite-endpoint.",
            )
            self.fields["negative_prompt"] = gr.Textbox(
                label=LABELS["negative_prompt"], info=info("negative_prompt"), lines=2, max_lines=6
            )
            with gr.Row():
                self.fields["true_cfg_scale"] = number_field("true_cfg_scale", defaults)
                self.fields["fps"] = number_field("fps", defaults)
        self.outlook = gr.HTML("", elem_id="hl-outlook")
        self.problems = gr.HTML("", elem_id="hl-problems")
        self.make = gr.Button("Generate", variant="primary", size="lg", elem_id="hl-make")
        self.notes = gr.HTML("", elem_id="hl-notes")

    def _add_image_field(self) -> None:
        """The input image, shown only for a model that takes one."""
        # The script writes the image's SHA-256 into this field.
        self.fields["image"] = gr.Textbox(label=LABELS["image"], visible="hidden", elem_id="hl-image-value")
        with gr.Column(visible=self.studio.own.takes_image, elem_id="hl-image") as self.image_group:
            self.picture = gr.HTML(image_field.field(None), js_on_load=image_field.script())
            gr.HTML(image_field.messages(), elem_id="hl-image-said")
            self.fields["image_fit"] = gr.Radio(
                get_args(ImageFit), value=DEFAULT_FIT, label=LABELS["image_fit"], info=info("image_fit")
            )

    def _add_result(self) -> None:
        with gr.Tabs() as self.tabs:
            with gr.Tab("Video", id="video"):
                self.stage = gr.HTML(cards.empty_stage(), js_on_load=_PASS_ON, elem_id="hl-stage")
            with gr.Tab("Past videos", id="past"):
                self.gallery = gr.HTML("", js_on_load=_PASS_ON, elem_id="hl-past")
            with gr.Tab("As code", id="code"):
                self.code = gr.HTML("", elem_id="hl-as-code")

    def _add_events(self) -> None:
        fields = [self.fields[name] for name in NAMES]
        shown = [self.stage, self.gallery, self.sent, self.timer]
        looks_at = [self.watched, self.page, self.sent]
        self.timer.tick(self.on_look, looks_at, [self.watched, *shown], **_PLAIN)
        gr.on(
            [self.make.click, *(self.fields[name].submit for name in ("prompt", *NUMBERS))],
            self.on_make, [*fields, self.page, self.sent], [self.problems, self.watched, self.tabs, *shown], **_PLAIN,
        ).then(None, js=_SHOW_STAGE)  # fmt: skip
        for component in (self.stage, self.gallery):
            component.select(
                self.on_act, looks_at, [*fields, self.problems, self.tabs, self.watched, self.page, *shown], **_PLAIN
            )
        gr.on(
            [component.change for component in fields], self.on_change, [*fields, self.modes],
            [self.outlook, self.notes, self.code, self.draft, self.fields["profile"], self.modes],
            trigger_mode="always_last", **_PLAIN,
        )  # fmt: skip
        self.fields["model"].change(
            self.on_model, [self.fields["model"], self.fields["size"], self.model_before],
            [*(self.fields[name] for name in (*NUMBERS, "size")), self.model_before], **_PLAIN,
        )  # fmt: skip
        gr.on(
            [self.fields["image"].change, self.fields["model"].change],
            self.on_image, [self.fields["image"], self.fields["model"]], [self.image_group, self.picture],
            trigger_mode="always_last", **_PLAIN,
        )  # fmt: skip
        self.blocks.load(self.on_load, [self.draft, *looks_at], [*fields, self.watched, *shown], **_PLAIN).then(
            self.on_change, [*fields, self.modes],
            [self.outlook, self.notes, self.code, self.draft, self.fields["profile"], self.modes], **_PLAIN,
        )  # fmt: skip

    # Event handlers; _add_events defines their inputs and outputs.

    def on_load(self, draft: Any, watched: str | None, page: int, sent: dict[str, Any]) -> list[Any]:
        """On page load, restore the form's draft and show the most relevant job."""
        fields = dict.fromkeys(NAMES, gr.skip())
        if isinstance(draft, dict) and draft.get("model") in self.studio.model_choices():
            fields |= self._fill({name: str(draft.get(name) or "") for name in NAMES})
        return [fields[name] for name in NAMES] + self.on_look(watched, page, {})

    def on_look(self, watched: str | None, page: int, sent: dict[str, Any]) -> list[Any]:
        """On each poll, send what has changed since the last one."""
        try:
            watched, now = self._look(watched, page)
        except Exception as error:
            now = {
                "stage": cards.problems(_sentences_of(error)),
                "gallery": sent.get("gallery", ""),
                "pause_s": _IDLE_S,
            }
        changed = {name: value if sent.get(name) != value else gr.skip() for name, value in now.items()}
        timer = gr.Timer(now["pause_s"]) if "pause_s" not in sent or sent["pause_s"] != now["pause_s"] else gr.skip()
        return [watched, changed["stage"], changed["gallery"], now, timer]

    def on_make(self, *values: Any) -> list[Any]:
        """Submit a job and watch it."""
        fields, (page, sent) = dict(zip(NAMES, values, strict=False)), values[len(NAMES) :]
        try:
            job_id = self.studio.submit(fields).job_id
        except Exception as error:
            return [cards.problems(_sentences_of(error)), *[gr.skip()] * 6]
        watched, *shown = self.on_look(job_id, page, sent)
        return ["", watched, gr.Tabs(selected="video"), *shown]

    def on_act(self, watched: str | None, page: int, sent: dict[str, Any], event: gr.EventData) -> list[Any]:
        """Handle a button of the stage or the gallery."""
        act, job_id = str(event.act), str(event.job)
        fields, problems, tabs = dict.fromkeys(NAMES, gr.skip()), "", gr.skip()
        try:
            match act:
                case "cancel":
                    self.studio.cancel(job_id)
                case "delete":
                    self.studio.delete(job_id)
                case "take-over":
                    fields |= self._fill(self.studio.take_over(job_id))
                case "open":
                    watched, tabs = job_id, gr.Tabs(selected="video")
                case "older" | "newer":
                    page = max(0, page + (1 if act == "older" else -1))
        except Exception as error:
            problems = cards.problems(_sentences_of(error))
        watched, *shown = self.on_look(watched, page, sent)
        return [*(fields[name] for name in NAMES), problems, tabs, watched, page, *shown]

    def on_change(self, request: gr.Request, *values: Any) -> list[Any]:
        """On each change of the form, update the outlook and the code."""
        fields, modes = dict(zip(NAMES, values, strict=False)), tuple(values[len(NAMES)])
        offered, profile = modes, gr.skip()
        try:
            found = self.studio.outlook(fields)
            outlook, notes, offered = cards.outlook(found), cards.notes(found), found.modes
        except Exception as error:
            outlook, notes = cards.impossible(_sentences_of(error)), gr.skip()
        try:
            code = cards.snippets(self.studio.snippets(fields, self._base_url(request)))
        except Exception as error:
            code = cards.impossible(_sentences_of(error))
        if offered != modes:
            profile = gr.Dropdown(choices=self._profiles(offered, fields["profile"]))
        return [outlook, notes, code, {name: fields[name] for name in NAMES}, profile, offered]

    def on_model(self, model: str, size: str, before: str) -> list[Any]:
        """On another model, show its defaults as placeholders."""
        try:
            defaults, old = self.studio.defaults(model), self.studio.defaults(before)
        except HunyuanLocalError:  # the outlook shows the error
            return [gr.skip()] * (len(NUMBERS) + 2)
        placeholders = [gr.Textbox(placeholder=defaults[name]) for name in NUMBERS]
        return [*placeholders, defaults["size"] if size in ("", old["size"]) else gr.skip(), model]

    def on_image(self, digest: str, model: str) -> list[Any]:
        """On another image or model, show the image if the model takes one; a hidden image stays in the form."""
        try:
            config = self.studio.load_model(model)
            if not config.takes_image:
                return [gr.Column(visible=False), gr.skip()]
            image = self.studio.images.find(digest) if digest else None
            return [gr.Column(visible=True), image_field.field(image, sizes=config.image_sizes)]
        except ValueError as error:
            said = _sentences_of(InvalidRequestError([FieldProblem("image", None, str(error))]))[0]
            return [gr.Column(visible=True), image_field.field(None, said)]
        except HunyuanLocalError:  # the outlook shows the error
            return [gr.skip(), gr.skip()]

    # Shared by the handlers

    def _look(self, watched: str | None, page: int) -> tuple[str | None, dict[str, Any]]:
        """The watched job, and the current content of the stage and the gallery."""
        studio = self.studio
        if watched is not None and studio.service.store.get(watched) is None:
            watched = None
        watched = watched or studio.newest()
        stage = cards.empty_stage() if watched is None else cards.stage(studio.show(watched))
        jobs, more = studio.history(page)
        gallery = cards.gallery(jobs, page, more, watched, time.time())
        return watched, {"stage": stage, "gallery": gallery, "pause_s": _BUSY_S if studio.unfinished() else _IDLE_S}

    def _fill(self, texts: dict[str, str]) -> dict[str, Any]:
        """Form updates for these texts; adds the mode to the choices first, so that it can be selected."""
        profile = gr.Dropdown(choices=self._profiles((), texts["profile"]), value=texts["profile"])
        chosen = {"rewrite": texts["rewrite"] or "off", "image_fit": texts["image_fit"] or DEFAULT_FIT}
        return texts | {"profile": profile} | chosen

    def _profiles(self, modes: Sequence[str], chosen: str) -> list[tuple[str, str]]:
        choices = self.studio.profile_choices(tuple(modes))
        return choices if chosen in dict((name, label) for label, name in choices) else [*choices, (chosen, chosen)]

    def _base_url(self, request: gr.Request) -> str:
        """The base URL under which this visitor sees the server."""
        public_url = self.studio.service.config.public_url
        return public_url or f"{request.request.url.scheme}://{request.headers['host']}"


def _head(studio: Studio) -> str:
    leave = '<form method="post" action="logout"><button class="hl-button">Log out</button></form>'
    return (
        f'<header class="hl-head"><h1>hunyuan-local</h1><p>{escape(studio.own.title)}</p>'
        f"{leave if studio.service.config.api_keys else ''}</header>"
    )


def _sentences_of(error: Exception) -> list[str]:
    """An error as sentences; unexpected errors go to the log, not on the page."""
    if isinstance(error, HunyuanLocalError):
        return sentences(error)
    logger.exception("the page: unexpected %s", type(error).__name__)
    return [f"An unexpected error; {SEE_LOG}."]
