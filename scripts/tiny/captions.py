"""Captions of the built-in checkpoint's world: one plain sentence and many natural variations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .world import BACKGROUNDS, COLOURS, SHAPES, Combination

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


PARTS = frozenset({"colour", "shape", "direction", "background"})
# What stands for a shape, a motion and a whole subject that a prompt says nothing about.
_NOUNS = ("shape", "shape", "object", "thing", "figure")
_MOTIONS = ("", "", "", "moving", "moves", "in motion")
_PRONOUNS = ("it", "the shape", "the object", "")


def plain(combination: Combination, kept: frozenset[str] = PARTS) -> str:
    """The canonical caption: ``a red circle moving right on a black background``; only the parts ``kept``."""
    c = combination
    subject = f"a {c.colour if 'colour' in kept else ''} {c.shape if 'shape' in kept else 'shape'}"
    motion = f"moving {c.direction}" if "direction" in kept else "moving"
    place = f"on a {c.background} background" if "background" in kept else ""
    return _tidy(f"{subject} {motion} {place}")


def varied(combination: Combination, rng: np.random.Generator, kept: frozenset[str] = PARTS) -> str:
    """A paraphrase: varied article, order, verb, spelling, capitals, trailing words.

    Says nothing about the parts that are not in ``kept``.
    """

    def pick(options: tuple[str, ...]) -> str:
        return options[rng.integers(len(options))]

    if rng.uniform() < 0.2:
        text = plain(combination, kept)
    else:
        subject = _subject(combination, kept, pick, rng)
        motion = f"{pick(_VERBS)} {pick(_DIRECTIONS[combination.direction])}"
        motion = motion if "direction" in kept else pick(_MOTIONS)
        place = _place(combination, pick) if "background" in kept else ""
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
    return _capitalise(_tidy(text) + pick(_ENDINGS), rng)


def only_direction(direction: str, rng: np.random.Generator) -> str:
    """Where something goes, for a picture that shows what: ``it moves left``."""

    def pick(options: tuple[str, ...]) -> str:
        return options[rng.integers(len(options))]

    return _capitalise(_tidy(f"{pick(_PRONOUNS)} {pick(_VERBS)} {pick(_DIRECTIONS[direction])}"), rng)


def without_some(rng: np.random.Generator) -> frozenset[str]:
    """The parts that a prompt keeps if it leaves out one (half of the draws), two, three or all four."""
    parts = sorted(PARTS)
    count = rng.choice(4, p=(0.5, 0.25, 0.2, 0.05)) + 1
    return PARTS - {parts[i] for i in rng.choice(4, size=count, replace=False)}


def contradicting(combination: Combination, rng: np.random.Generator) -> Combination:
    """The combination with another colour (half of the draws), shape or background: not what the picture shows."""
    part, options = (("colour", COLOURS), ("colour", COLOURS), ("shape", SHAPES), ("background", BACKGROUNDS))[
        rng.integers(4)
    ]
    others = [value for value in options if value != getattr(combination, part)]
    return replace(combination, **{part: others[rng.integers(len(others))]})


def _subject(combination: Combination, kept: frozenset[str], pick, rng: np.random.Generator) -> str:
    article, adjective = pick(_ARTICLES), pick(_ADJECTIVES)
    noun = combination.shape if "shape" in kept else pick(_NOUNS)
    colour = combination.colour if "colour" in kept else ""
    if rng.uniform() < 0.12 and colour:
        words = (article, adjective, noun, "that is", colour)
    else:
        words = (article, adjective, colour, noun)
    return " ".join(word for word in words if word)


def _place(combination: Combination, pick) -> str:
    word = pick(_BACKGROUND_WORDS[combination.background])
    form = pick(("on a {} background", "on a {} background", "on a {} background", "against a {} background",
                 "over a {} background", "on {}", "on {} background", "with a {} background"))  # fmt: skip
    return form.format(word)


def _tidy(text: str) -> str:
    """Without the spaces and commas that empty parts leave behind."""
    return " ".join(text.split()).replace(" ,", ",").strip(" ,")


def _capitalise(text: str, rng: np.random.Generator) -> str:
    draw = rng.uniform()
    if draw < 0.5:
        return text
    if draw < 0.85:
        return text[0].upper() + text[1:]
    return text.title() if draw < 0.92 else text.upper()
