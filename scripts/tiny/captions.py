"""Captions of the built-in checkpoint's world: one plain sentence and many natural variations."""

from __future__ import annotations

import numpy as np

from .world import Combination

_VERBS = ("moving", "moves", "travels", "travelling", "going", "goes", "drifting", "drifts", "sliding", "slides",
          "gliding", "floats", "heading")  # fmt: skip
_DIRECTIONS = {
    "left": ("left", "to the left", "leftwards", "leftward", "towards the left", "toward the left side"),
    "right": ("right", "to the right", "rightwards", "rightward", "towards the right", "toward the right side"),
    "up": ("up", "upwards", "upward", "to the top", "towards the top", "up the screen"),
    "down": ("down", "downwards", "downward", "to the bottom", "towards the bottom", "down the screen"),
}
_BACKGROUND_WORDS = {"black": ("black",), "grey": ("grey", "gray"), "navy": ("navy", "navy", "navy blue")}
_ARTICLES = ("a", "a", "a", "the", "one", "")
_ADJECTIVES = ("", "", "", "", "", "small", "big", "single", "flat", "solid", "bright")
_OPENINGS = ("a video of", "an animation of", "a clip of", "a short film of", "a video showing")
_ENDINGS = ("", "", "", ".", ".", ", smooth motion", ", simple animation", ", high quality", ", minimal style",
            " slowly", ", 4k", ", flat design", ", clean and simple", " at a steady pace", "!")  # fmt: skip


def plain(combination: Combination) -> str:
    """The canonical caption: ``a red circle moving right on a black background``."""
    c = combination
    return f"a {c.colour} {c.shape} moving {c.direction} on a {c.background} background"


def varied(combination: Combination, rng: np.random.Generator) -> str:
    """A paraphrase: varied article, order, verb, spelling, capitals, trailing words."""

    def pick(options: tuple[str, ...]) -> str:
        return options[rng.integers(len(options))]

    if rng.uniform() < 0.2:
        text = plain(combination)
    else:
        subject = _subject(combination, pick, rng)
        motion = f"{pick(_VERBS)} {pick(_DIRECTIONS[combination.direction])}"
        place = _place(combination, pick)
        order = rng.integers(8)
        if order < 4:
            text = f"{subject} {motion} {place}"
        elif order == 4:
            text = f"{place}, {subject} {motion}"
        elif order == 5:
            text = f"{subject} {place} {motion}"
        elif order == 6:
            text = f"{subject} {place}, {motion}"
        else:
            text = f"{pick(_OPENINGS)} {subject} {motion} {place}"
    return _capitalise(text + pick(_ENDINGS), rng)


def _subject(combination: Combination, pick, rng: np.random.Generator) -> str:
    article, adjective = pick(_ARTICLES), pick(_ADJECTIVES)
    if rng.uniform() < 0.12:
        words = (article, adjective, combination.shape, "that is", combination.colour)
    else:
        words = (article, adjective, combination.colour, combination.shape)
    return " ".join(word for word in words if word)


def _place(combination: Combination, pick) -> str:
    word = pick(_BACKGROUND_WORDS[combination.background])
    form = pick(("on a {} background", "on a {} background", "on a {} background", "against a {} background",
                 "over a {} background", "on {}", "on {} background", "with a {} background"))  # fmt: skip
    return form.format(word)


def _capitalise(text: str, rng: np.random.Generator) -> str:
    draw = rng.uniform()
    if draw < 0.5:
        return text
    if draw < 0.85:
        return text[0].upper() + text[1:]
    return text.title() if draw < 0.92 else text.upper()
