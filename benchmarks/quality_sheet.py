"""Contact sheet of the quality benchmark: a prompt and four frames for each colour and shape."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from PIL import Image, ImageDraw, ImageFont
from quality_records import SHEET_FRAMES, Record
from tiny.world import COLOURS, LANDSCAPE, SHAPES, is_held_out

GAP, CAPTION = 4, 44
AFTER_PICTURE = 12  # pixels between the picture and the video's frames


def contact_sheet(records: Sequence[Record]) -> Image.Image:
    """The first record of each colour (6 rows) and shape (3 columns), with its caption above.

    For image to video, the picture is left of the frames.
    """
    first = {}
    for record in records:
        first.setdefault((record.task.combination.colour, record.task.combination.shape), record)
    width = max((r.task.size[0] for r in first.values()), default=LANDSCAPE[0])
    height = max((r.task.size[1] for r in first.values()), default=LANDSCAPE[1])
    of_picture = width + AFTER_PICTURE if any(r.task.scene for r in first.values()) else 0
    font = ImageFont.load_default(size=15)
    cell = (of_picture + len(SHEET_FRAMES) * (width + GAP) + 20, CAPTION + height + 14)
    sheet = Image.new("RGB", (cell[0] * len(SHAPES) + 20, cell[1] * len(COLOURS) + 10), "white")
    draw = ImageDraw.Draw(sheet)
    for (row, colour), (column, shape) in product(enumerate(COLOURS), enumerate(SHAPES)):
        record = first.get((colour, shape))
        if record is None:
            continue
        left, top = 20 + column * cell[0], 10 + row * cell[1]
        note = " [not in training]" if is_held_out(record.task.combination) else ""
        lines = _wrap(record.task.prompt + note, font, cell[0] - 24)
        draw.multiline_text((left, top), "\n".join(lines[:2]), fill="black", font=font, spacing=3)
        top += CAPTION
        if (picture := record.task.picture) is not None:
            sheet.paste(Image.fromarray(picture), (left, top))
        left += of_picture
        if record.stills is None:
            draw.text((left, top), "no video", fill="red", font=font)
            continue
        for number, still in enumerate(record.stills):
            sheet.paste(Image.fromarray(still), (left + number * (width + GAP), top))
    return sheet


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if font.getlength(longer) <= width else [*lines, word]
    return lines
