"""The page's theme and number fields in Gradio. Importing this module imports Gradio."""

import gradio as gr

from ..schema import GenerationRequest, field_limits
from .form import LABELS

_WHOLE, _REAL = ("num_frames", "num_inference_steps", "seed", "fps"), ("guidance_scale", "flow_shift", "true_cfg_scale")
NUMBERS = (*_WHOLE, *_REAL)
_WITH_INFO = ("true_cfg_scale", "fps")


def make_theme() -> gr.themes.Base:
    """Colours with enough contrast, and system fonts, so that nothing is downloaded."""
    fonts = ["system-ui", "sans-serif"]
    theme = gr.themes.Default(
        primary_hue="blue",
        secondary_hue="blue",
        neutral_hue="slate",
        font=fonts,
        font_mono=["ui-monospace", "monospace"],
    )
    return theme.set(
        button_primary_background_fill="*primary_700", button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700", button_primary_background_fill_hover_dark="*primary_600",
        body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600", block_info_text_color_dark="*neutral_300",
        input_placeholder_color="*neutral_500", input_placeholder_color_dark="*neutral_400",
    )  # fmt: skip


def number_field(name: str, defaults: dict[str, str]) -> gr.Textbox:
    """A text field for a number, with the default as its placeholder."""
    return gr.Textbox(
        label=f"{LABELS[name]} (4k+1)" if name == "num_frames" else LABELS[name],
        placeholder=defaults[name],
        info=info(name) if name in _WITH_INFO else None,
        max_lines=1,
        min_width=100,
        elem_classes="hl-whole" if name in _WHOLE else "hl-real",
        html_attributes=gr.InputHTMLAttributes(autocomplete="off", spellcheck=False),
    )


def info(name: str) -> str:
    """What a field means, and its limits."""
    limits = field_limits(name)
    return f"{GenerationRequest.model_fields[name].description or ''}{'' if limits is None else f' {limits}'}"
