"""Poisoned images of every kind at once, among good jobs, at a real server: each is refused, and nothing is lost."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
import uvicorn
from fastapi.testclient import TestClient
from PIL import Image
from server_stage import MODEL, Stage
from server_thread import ServerThread

from hunyuan_local.outbound import address_check
from hunyuan_local.server import image_reader
from hunyuan_local.wires import openai, wavespeed

TAKES = MODEL.model_copy(update={"name": "toy-i2v", "takes_image": True})
LIMIT_S = 1.0


class Host(BaseHTTPRequestHandler):
    """A host of images that redirects to a private address, or sends slowly."""

    def do_GET(self) -> None:
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "http://10.0.0.1/secret.png")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        for _ in range(40):
            self.wfile.write(b"x")
            time.sleep(LIMIT_S / 10)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the host, which counts as public; every other address stays what it is."""
    is_public = address_check.is_public
    monkeypatch.setattr(address_check, "is_public", lambda ip: str(ip) == "127.0.0.1" or is_public(ip))
    monkeypatch.setattr(image_reader, "FETCH_S", LIMIT_S)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Host)
    server.handle_error = lambda *_: None  # callers hang up on the slow one
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


GOOD = encoded(Image.new("RGB", (64, 48)))
NOISE = encoded(Image.effect_noise((200, 200), 80))
FILES = {
    "bomb": (encoded(Image.new("1", (20_000, 20_000)), compress_level=1), "the limit is 50,000,000"),
    "truncated": (NOISE[: len(NOISE) // 2], "damaged or incomplete"),
    "animated": (
        encoded(Image.new("L", (64, 64)), "GIF", save_all=True, append_images=[Image.new("L", (64, 64), 255)]),
        "holds 2 images",
    ),
    "too large": (b"\x89PNG" + bytes(32 * 1024**2), "the limit is 32 MiB"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg' width='64' height='64'/>", "is not that of an image"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\nshowpage\n", "is not that of an image"),
}


def poisoned(host: str) -> list[tuple[str, dict[str, object], str]]:
    """20 submissions: path, arguments of the call, and what the refusal says."""
    by_file = [
        (openai.SUBMIT_PATH, {"data": {"prompt": "x"}, "files": {"input_reference": ("a.png", content)}}, rule)
        for content, rule in FILES.values()
    ]
    small = [content for content, _ in FILES.values() if len(content) < 10**6]
    as_text = [
        (wavespeed.IMAGE_SUBMIT_PATH, {"json": {"prompt": "x", "image": base64.b64encode(content).decode()}}, "image=")
        for content in small
    ]
    urls = [("http://10.0.0.1/a.png", "--allow-private-images"), (f"{host}/away", "--allow-private-images")]
    urls += [(f"{host}/slow", "did not answer in time")] * 7
    by_url = [(wavespeed.IMAGE_SUBMIT_PATH, {"json": {"prompt": "x", "image": url}}, rule) for url, rule in urls]
    return by_file + as_text + by_url


def test_every_poisoned_image_is_refused_among_good_jobs(
    make_client: Callable[..., TestClient], stage: Stage, host: str
) -> None:
    server = ServerThread(uvicorn.Config(make_client(model=TAKES).app, log_config=None))
    good = {"data": {"prompt": "good"}, "files": {"input_reference": ("a.png", GOOD)}}
    calls = poisoned(host)
    assert len(calls) == 20
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as http, ThreadPoolExecutor(32) as pool:
        sent = [(pool.submit(http.post, path, **call), rule) for path, call, rule in calls]
        made = [pool.submit(http.post, openai.SUBMIT_PATH, **good) for _ in range(10)]
        # The slow host holds its downloads for a second; others do not wait for them.
        assert http.get("/healthz").status_code == 200
        ids = {answer.result().json()["id"] for answer in made}
        for answer, rule in sent:
            assert (answer.result().status_code, rule in answer.result().text) == (400, True), answer.result().text
    server.close()
    assert {job.job_id for job in stage.store.find(limit=100)} == ids and len(ids) == 10
    assert len(stage.folder.image_digests()) == 1


def test_a_slow_host_delays_no_other_submission(make_client: Callable[..., TestClient], host: str) -> None:
    server = ServerThread(uvicorn.Config(make_client(model=TAKES).app, log_config=None))
    slow = {"prompt": "x", "image": f"{host}/slow"}
    quick = {"prompt": "x", "image": base64.b64encode(GOOD).decode()}
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as http, ThreadPoolExecutor(48) as pool:
        waiting = [pool.submit(http.post, wavespeed.IMAGE_SUBMIT_PATH, json=slow) for _ in range(40)]
        time.sleep(0.2)
        assert http.post(wavespeed.IMAGE_SUBMIT_PATH, json=quick).status_code == 200
        assert not all(answer.done() for answer in waiting)
        assert {answer.result().status_code for answer in waiting} == {400}
    server.close()


def test_more_images_than_can_wait_are_refused_for_now(
    make_client: Callable[..., TestClient], host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_reader, "FETCHES", 1)
    monkeypatch.setattr(image_reader, "MOST_WAITING", 1)
    server = ServerThread(uvicorn.Config(make_client(model=TAKES).app, log_config=None))
    slow = {"prompt": "x", "image": f"{host}/slow"}
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as http, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: http.post(wavespeed.IMAGE_SUBMIT_PATH, json=slow), range(6)))
    server.close()
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) == 4 and all(int(answer.headers["retry-after"]) > 0 for answer in refused)
