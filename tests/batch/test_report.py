"""The page of a batch: its contents, safety, self-containedness and images."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image
from standin import sample_video

from hunyuan_local.batch import report
from hunyuan_local.batch.report import ReportRow, write_report
from hunyuan_local.errors import ConfigError, VideoError
from hunyuan_local.schema import GenerationRequest, Timings
from hunyuan_local.video import VideoWriter, read_poster

VOID = {"meta", "rect", "img", "input", "br", "link"}
Page = Callable[..., "Element"]


class Element:
    """An element of a page, with the text inside it."""

    def __init__(self, tag: str, attributes: dict[str, str | None]):
        self.tag, self.attributes, self.inside = tag, attributes, []

    def __getitem__(self, attribute: str) -> str | None:
        return self.attributes[attribute]

    @property
    def text(self) -> str:
        return "".join(part if isinstance(part, str) else part.text for part in self.inside)

    def all(self, tag: str = "", kind: str = "") -> list[Element]:
        return [
            element
            for element in self._walk()
            if element.tag == (tag or element.tag) and (not kind or kind in (element.attributes.get("class") or ""))
        ]

    def _walk(self) -> Iterator[Element]:
        for part in self.inside:
            if isinstance(part, Element):
                yield part
                yield from part._walk()


class Reader(HTMLParser):
    """Builds the tree of a page; an element that is unclosed, or closed in the wrong order, is an error."""

    def __init__(self, page: str):
        super().__init__()
        self.root = Element("", {})
        self._open = [self.root]
        self.feed(page)
        self.close()
        assert self._open == [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        assert len(element.attributes) == len(attrs)
        self._open[-1].inside.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self._open[-1].inside.append(data)


def row(prompt: str = "a red circle", **fields: Any) -> ReportRow:
    known: dict[str, Any] = {
        "line": 1, "status": "succeeded", "video": None, "poster": None, "timings": None, "error": "", "notes": [],
        "cost_usd": None, "attempts": 1, "device": None,
    }  # fmt: skip
    request = {name: fields.pop(name) for name in list(fields) if name in GenerationRequest.model_fields}
    return ReportRow(request=GenerationRequest(prompt=prompt, **request), **(known | fields))


@pytest.fixture
def page(tmp_path: Path) -> Page:
    """Write a page with these rows; returns what a reader sees."""

    def make(*rows: ReportRow, title: str = "A batch", facts: dict[str, str] | None = None) -> Element:
        path = tmp_path / "report.html"
        write_report(path, rows, title=title, facts=facts or {})
        return Reader(path.read_text(encoding="utf-8")).root

    return make


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A video with five frames of 1280*720 next to the page."""
    path = tmp_path / "a: 100% #1?.mp4"
    path.write_bytes(sample_video())
    return path


def settings(root: Element) -> dict[str, str]:
    return {name.text: value.text for name, value in zip(root.all("dt"), root.all("dd"), strict=True)}


# ---- what stands on it -----------------------------------------------------------------------------------------------


def test_the_page_says_its_title_the_facts_and_the_counts(page: Page) -> None:
    rows = [row(), row(status="failed", error="no memory"), row()]
    root = page(*rows, title="Circles", facts={"Model": "tiny", "Took": "3 s"})
    facts = root.all("table", "facts")[0]
    assert root.all("title")[0].text == root.all("h1")[0].text == "Circles"
    assert [(th.text, td.text) for th, td in zip(facts.all("th"), facts.all("td"), strict=True)] == [
        ("Model", "tiny"), ("Took", "3 s"),
    ]  # fmt: skip
    assert [badge.text for badge in root.all("ul", "counts")[0].all("li")] == ["2 succeeded", "1 failed"]


def test_each_row_is_a_card_with_its_line_state_and_prompt(page: Page) -> None:
    cards = page(row("a", line=3), row("b", line=7, status="queued")).all("li", "card")
    assert [card.all("h3")[0].text for card in cards] == ["Line 3", "Line 7"]
    assert [card.all("span", "badge")[0].text for card in cards] == ["succeeded", "queued"]
    assert [card.all("p", "prompt")[0].text for card in cards] == ["a", "b"]


def test_the_settings_are_those_that_were_given(page: Page) -> None:
    asked = {"width": 144, "height": 80, "num_frames": 17, "num_inference_steps": 4, "seed": 2**64 - 1, "fps": 8}
    scales = {"guidance_scale": 6.0, "flow_shift": 7.5, "true_cfg_scale": 2.0, "negative_prompt": "blur"}
    assert settings(page(row(**asked, **scales, cost_usd=0.3, attempts=2, device="cpu"))) == {
        "Size": "144 \N{MULTIPLICATION SIGN} 80", "Frames": "17", "Steps": "4", "Seed": "18446744073709551615",
        "Guidance": "6", "True CFG": "2", "Flow shift": "7.5", "Frames per second": "8", "Negative prompt": "blur",
        "Device": "cpu", "Attempts": "2", "Cost": "0.3000 US$",
    }  # fmt: skip


def test_settings_that_nobody_gave_are_left_out(page: Page) -> None:
    assert settings(page(row())) == {}


def test_the_bar_shows_each_stage_in_its_share_of_the_time(page: Page) -> None:
    timings = Timings(load_s=10, denoise_s=70, denoise_steps=4, decode_s=8.25, total_s=100)
    root = page(row(timings=timings))
    assert [(part["class"], part["x"], part["width"]) for part in root.all("rect")] == [
        ("stage-load", "0.00", "10.00"), ("stage-denoise", "10.00", "70.00"), ("stage-decode", "80.00", "8.25"),
    ]  # fmt: skip
    assert [stage.text for stage in root.all("ul", "stages")[0].all("li")] == [
        "load 10 s", "denoise 1 min 10 s, 4 steps", "decode 8.2 s", "total 1 min 40 s",
    ]  # fmt: skip


def test_a_stage_reported_longer_than_the_whole_stays_on_the_bar(page: Page) -> None:
    parts = page(row(timings=Timings(run_s=30, queue_s=10, total_s=20))).all("rect")
    assert [part["width"] for part in parts] == ["25.00", "75.00"]


def test_a_failed_row_says_why_on_its_card_and_at_the_top(page: Page) -> None:
    root = page(row(), row(line=4, status="failed", error="no memory", notes=["tried twice"]))
    card = root.all("li", "failed")[-1]
    listed = root.all("table", "failures")[0].all("tbody")[0]
    assert card.all("p", "error")[0].text == "Error: no memory"
    assert card.all("ul", "notes")[0].text.strip() == "tried twice"
    assert (listed.all("a")[0].text, listed.all("td")[0].text) == ("Line 4", "no memory")
    assert listed.all("a")[0]["href"] == f"#{card['id']}"


def test_nothing_went_wrong_where_nothing_did(page: Page) -> None:
    assert ">Errors<" not in page(row()).text


def test_a_long_prompt_is_folded_and_whole(page: Page) -> None:
    prompt = "a slow shot " * 100
    folded = page(row(prompt)).all("details")[0]
    assert len(folded.all("summary")[0].text) <= 300
    assert folded.all("p")[0].text == prompt


def test_an_empty_batch_has_a_page(page: Page) -> None:
    assert page().all("li", "card") == []


# ---- videos and pictures ---------------------------------------------------------------------------------------------


def test_a_video_below_the_page_is_linked_relative_to_it(page: Page, video: Path, tmp_path: Path) -> None:
    root = page(row(video=str(video), width=1280, height=720))
    link, player = root.all("a")[0], root.all("video")[0]
    assert link["href"] == player["src"] == "a%3A%20100%25%20%231%3F.mp4"
    assert (tmp_path / unquote(link["href"])).samefile(video)
    assert (player["preload"], player["style"]) == ("none", "aspect-ratio: 1280 / 720")


def test_a_relative_path_is_one_from_the_working_folder(
    page: Page, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(video.parent)
    assert page(row(video=video.name)).all("a")[0]["href"] == "a%3A%20100%25%20%231%3F.mp4"


def test_a_video_elsewhere_is_linked_by_its_absolute_path(page: Page, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("elsewhere") / "a b.mp4"
    other.write_bytes(b"")
    assert page(row(video=str(other))).all("a")[0]["href"] == f"file://{other.parent}/a%20b.mp4"


def test_an_address_is_linked_as_it_is(page: Page) -> None:
    address = "https://cdn.example.com/v/1.mp4?sig=<a>&b"
    link = page(row(video=address)).all("a")[0]
    assert (link["href"], link.text) == (address, "1.mp4")


def test_a_file_that_is_gone_is_reported(page: Page, tmp_path: Path) -> None:
    root = page(row(video=str(tmp_path / "gone.mp4")))
    assert root.all("a") == root.all("video") == []
    assert f"The file no longer exists: {tmp_path}/gone.mp4" in root.text


@pytest.mark.usefixtures("starts_process")
def test_the_picture_of_a_video_is_inside_the_page(page: Page, video: Path) -> None:
    player = page(row("a <cat>", line=3, seed=5, video=str(video), poster=video)).all("video")[0]
    kind, _, data = player["poster"].partition(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (320, 180)
    assert player["aria-label"] == "Video of line 3, seed 5: a <cat>"


@pytest.mark.usefixtures("starts_process")
def test_a_picture_without_a_video_has_words_for_it(page: Page, video: Path) -> None:
    picture = page(row(line=3, poster=video)).all("img")[0]
    assert picture["alt"] == "Middle frame of the video of line 3: a red circle"


@pytest.mark.usefixtures("starts_process")
def test_a_broken_video_has_no_picture_and_the_page_says_why(page: Page, video: Path) -> None:
    video.write_bytes(b"no video")
    root = page(row(video=str(video), poster=video))
    assert "poster" not in root.all("video")[0].attributes
    assert re.search(r"No preview image: .*Invalid data found", root.text)


# ---- safe, whole by itself, whole or not there -----------------------------------------------------------------------

HOSTILE = "</p><script>alert(1)</script>'\" onload=x <img src=x onerror=alert(1)> {{ 7 * 7 }} javascript:alert(1)"


def test_hostile_text_stays_text(page: Page, tmp_path: Path) -> None:
    hostile = row(HOSTILE, negative_prompt=HOSTILE, error=HOSTILE, notes=[HOSTILE], device=HOSTILE, video=HOSTILE)
    (tmp_path / "a.mp4").write_bytes(b"")
    root = page(
        hostile, row(HOSTILE * 5, video=str(tmp_path / "a.mp4")), title=HOSTILE, facts={HOSTILE: HOSTILE}
    )  # fmt: skip
    assert root.all("script") == root.all("img") == []
    assert not [name for element in root.all() for name in element.attributes if name.startswith("on")]
    assert HOSTILE in {element.text for element in root.all("p")}
    assert root.all("h1")[0].text == HOSTILE


@pytest.mark.parametrize("video", ["javascript:alert(1)", "data:text/html,x", "//evil.example/x.mp4", "ftp://x/y"])
def test_only_web_addresses_and_files_are_linked(page: Page, video: str) -> None:
    assert page(row(video=video)).all("a") == []


def test_a_video_at_an_address_that_no_browser_opens_is_named(page: Page) -> None:
    text = page(row(video="s3://bucket/night/a.mp4")).text
    assert "s3://bucket/night/a.mp4" in text and "no longer exists" not in text


def test_a_file_named_like_a_script_is_linked_as_a_file(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("javascript:alert(1).mp4").write_bytes(b"")
    assert page(row(video="javascript:alert(1).mp4")).all("a")[0]["href"] == "javascript%3Aalert%281%29.mp4"


@pytest.mark.usefixtures("starts_process")
def test_the_page_loads_nothing_from_elsewhere(page: Page, video: Path) -> None:
    root = page(row(video=str(video), poster=video), row(status="failed", error="no memory"))
    assert root.all("link") == root.all("script") == root.all("iframe") == []
    assert re.search(r"url\(|@import", root.all("style")[0].text) is None
    policy = next(meta["content"] for meta in root.all("meta") if "http-equiv" in meta.attributes)
    assert policy.startswith("default-src 'none'; ")


def test_every_name_on_the_page_is_there_once(page: Page) -> None:
    rows = [row(), row(status="failed", error="no memory"), row()]
    names = [element["id"] for element in page(*rows).all() if "id" in element.attributes]
    assert len(names) == len(set(names))


def test_a_name_that_is_no_utf_8_can_be_shown(page: Page) -> None:
    assert r"a\udcff.mp4 is gone" in page(row(status="failed", error="a\udcff.mp4 is gone")).text


def test_a_page_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"report .*missing/report\.html: cannot be written: No such file"):
        write_report(tmp_path / "missing" / "report.html", [], title="A batch", facts={})


def test_a_picture_that_fails_in_any_way_is_left_out_with_the_reason(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> bytes:
        raise MemoryError("no memory for a picture")

    monkeypatch.setattr(report, "read_poster", fail)
    assert "no memory for a picture" in page(row(poster=tmp_path / "a.mp4")).text


def test_a_newer_page_replaces_the_older_one(page: Page, tmp_path: Path) -> None:
    page(title="Old")
    assert page(title="New").all("h1")[0].text == "New"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


# ---- read_poster -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("starts_process")
@pytest.mark.parametrize(("num_frames", "fps"), [(1, 1), (1, 240), (5, 24), (17, 30)])
def test_the_picture_is_the_middle_frame_in_its_colours(tmp_path: Path, num_frames: int, fps: int) -> None:
    path = tmp_path / "a.mp4"
    shades = np.linspace(40, 220, num_frames).astype(np.uint8)
    with VideoWriter(path, frame_size=(32, 16), fps=fps) as writer:
        for shade in shades:
            writer.write(np.broadcast_to(np.array([shade, 60, 0], np.uint8), (1, 16, 32, 3)))
        writer.finish()
    picture = np.asarray(Image.open(io.BytesIO(read_poster(path))), float)
    assert np.abs(picture.mean((0, 1)) - [shades[(num_frames - 1) // 2], 60, 0]).max() < 4


@pytest.mark.usefixtures("starts_process")
@pytest.mark.parametrize(
    ("size", "small"), [((1280, 720), (320, 180)), ((720, 1280), (180, 320)), ((64, 32), (64, 32))]
)
def test_a_picture_is_made_small_and_never_larger(
    tmp_path: Path, size: tuple[int, int], small: tuple[int, int]
) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(sample_video(*size))
    assert Image.open(io.BytesIO(read_poster(path))).size == small


@pytest.mark.usefixtures("starts_process")
@pytest.mark.parametrize("part", [0.0, 0.5])
def test_half_a_video_has_no_picture(tmp_path: Path, part: float) -> None:
    path = tmp_path / "a.mp4"
    data = sample_video()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(VideoError, match=r"a\.mp4: cannot extract an image"):
        read_poster(path)
