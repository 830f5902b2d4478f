"""HEAD for every GET, entity tags, and 304 for clients that already have the response."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from email.utils import formatdate

import httpx
import pytest
from fastapi.testclient import TestClient
from server_stage import CLIP, Stage

from hunyuan_local.jobs.job import Job

KEYS = ("first-key",)
ETAG = f'"{hashlib.sha256(CLIP).hexdigest()[:32]}"'
# Readable routes of each dialect and of none; {} is a job's id.
PATHS = (
    "/healthz", "/metrics", "/docs", "/openapi.json", "/v1/videos", "/v1/videos/{}", "/v1/videos/{}/content",
    "/v1/models", "/v1/models/tiny", "/api/v3/predictions/{}", "/api/v3/predictions/{}/result",
    "/api/v3/balance", "/api/v3/models", "/api/v3/webhook/secret", "/v3/async/task-result?task_id={}",
    "//v3/async/task-result?task_id={}",
)  # fmt: skip
STATES = (
    "/v1/videos/{}",
    "/api/v3/predictions/{}",
    "/api/v3/predictions/{}/result",
    "/v3/async/task-result?task_id={}",
)


@pytest.fixture
def job(stage: Stage) -> Job:
    return stage.succeeded()


def content(job: Job) -> str:
    return f"/v1/videos/{job.job_id}/content"


# HEAD


@pytest.mark.parametrize("path", PATHS)
def test_head_is_answered_as_get_without_the_body(client: TestClient, job: Job, path: str) -> None:
    url = f"http://testserver{path.format(job.job_id)}"
    head, get = client.head(url), client.get(url)
    assert (head.status_code, head.content) == (200, b"")
    if path != "/metrics":  # because reading is counted
        assert head.headers == get.headers


def test_head_of_a_server_that_is_not_ready_says_so(client: TestClient) -> None:
    assert client.head("/readyz").status_code == 503


@pytest.mark.parametrize("path", ["/v1/videos/none", "/v1/videos/none/content", "/v1/none", "/none"])
def test_head_of_nothing_is_not_found(client: TestClient, path: str) -> None:
    assert (client.head(path).status_code, client.head(path).content) == (404, b"")


def test_head_of_what_is_only_posted_is_refused(client: TestClient) -> None:
    answer = client.head("/api/v3/predictions")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("path", [path for path in PATHS if path not in ("/healthz", "/docs", "/openapi.json")])
def test_head_needs_the_key_that_get_needs(make_client: Callable[..., TestClient], job: Job, path: str) -> None:
    url = f"http://testserver{path.format(job.job_id)}"
    guarded = make_client(api_keys=KEYS)
    assert guarded.head(url).status_code == (400 if "/v3/async" in path else 401)
    assert guarded.head(url, headers={"Authorization": f"Bearer {KEYS[0]}"}).status_code == 200


def test_a_real_server_answers_head_and_continues(live: str, job: Job) -> None:
    with httpx.Client(base_url=live) as client:  # one connection: a body after the headers would corrupt the next
        found = [client.head(path.format(job.job_id)).status_code for path in PATHS[:-1]]
    assert set(found) == {200}


# Entity tags


def test_the_tag_of_a_file_is_that_of_its_content(client: TestClient, job: Job) -> None:
    assert client.get(content(job)).headers["etag"] == ETAG


def test_the_tag_of_a_state_changes_with_it(client: TestClient, stage: Stage) -> None:
    job = stage.queued()
    tags = [client.get(f"/v1/videos/{job.job_id}").headers["etag"]]
    stage.finish(stage.running())
    tags.append(client.get(f"/v1/videos/{job.job_id}").headers["etag"])
    assert tags[0] != tags[1]


@pytest.mark.parametrize("path", STATES)
def test_a_state_that_is_known_is_not_sent_again(client: TestClient, job: Job, path: str) -> None:
    url = path.format(job.job_id)
    first = client.get(url)
    again = client.get(url, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])


def test_a_state_that_is_known_still_says_when_to_ask_again(client: TestClient, stage: Stage) -> None:
    url = f"/v1/videos/{stage.queued().job_id}"
    again = client.get(url, headers={"If-None-Match": client.get(url).headers["etag"]})
    assert (again.status_code, "openai-poll-after-ms" in again.headers) == (304, True)


def test_caches_ask_for_a_state_each_time(client: TestClient, job: Job) -> None:
    assert client.get(f"/v1/videos/{job.job_id}").headers["cache-control"] == "private, no-cache"


@pytest.mark.parametrize("tags", [ETAG, f"W/{ETAG}", f'"x", {ETAG}', f'"x",{ETAG}', "*"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_file_that_is_known_is_not_sent_again(client: TestClient, job: Job, method: str, tags: str) -> None:
    answer = client.request(method, content(job), headers={"If-None-Match": tags})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", ETAG)
    assert not answer.headers.keys() & {"content-length", "content-type"}


@pytest.mark.parametrize("tags", ['"x"', "", ETAG.strip('"'), f"{ETAG[:-1]}x", "W/*"])
def test_another_tag_is_not_known(client: TestClient, job: Job, tags: str) -> None:
    assert client.get(content(job), headers={"If-None-Match": tags}).content == CLIP


def test_a_file_that_is_known_by_its_address_is_not_sent_again(client: TestClient, job: Job) -> None:
    url = client.app.state.service.links.sign("http://testserver", job.job_id)
    assert client.get(url, headers={"If-None-Match": ETAG}).status_code == 304


@pytest.mark.usefixtures("starts_process")
def test_a_thumbnail_has_a_tag_of_its_own(client: TestClient, job: Job) -> None:
    url = f"{content(job)}?variant=thumbnail"
    tag = client.get(url).headers["etag"]
    assert (tag != ETAG, client.get(url, headers={"If-None-Match": tag}).status_code) == (True, 304)


def test_a_known_thumbnail_is_not_made(client: TestClient, stage: Stage, job: Job) -> None:
    broken = CLIP[:100]
    stage.folder.video(job).write_bytes(broken)
    tag = f'"{hashlib.sha256(broken).hexdigest()[:32]}-thumbnail"'
    assert client.get(f"{content(job)}?variant=thumbnail", headers={"If-None-Match": tag}).status_code == 304


def test_a_submission_is_answered_whatever_is_known(client: TestClient) -> None:
    answer = client.post("/v1/videos", json={"prompt": "a fox"}, headers={"If-None-Match": "*"})
    assert (answer.status_code, "etag" in answer.headers) == (200, False)


def test_an_error_has_no_tag(client: TestClient) -> None:
    answer = client.get("/v1/videos/none", headers={"If-None-Match": "*"})
    assert (answer.status_code, "etag" in answer.headers) == (404, False)


# Dates


@pytest.mark.parametrize(("later_s", "status"), [(0, 304), (3600, 304), (-3600, 200)])
def test_a_file_is_sent_if_it_is_newer_than_a_date(
    client: TestClient, stage: Stage, job: Job, later_s: int, status: int
) -> None:
    date = formatdate(int(stage.folder.video(job).stat().st_mtime) + later_s, usegmt=True)
    assert client.get(content(job), headers={"If-Modified-Since": date}).status_code == status


@pytest.mark.parametrize("date", ["yesterday", "", "1", "Mon, 99 Nov 2026 17:28:12 GMT"])
def test_what_is_no_date_is_as_good_as_none(client: TestClient, job: Job, date: str) -> None:
    assert client.get(content(job), headers={"If-Modified-Since": date}).status_code == 200


def test_a_tag_counts_more_than_a_date(client: TestClient, job: Job) -> None:
    headers = {"If-Modified-Since": formatdate(4e9, usegmt=True), "If-None-Match": '"x"'}
    assert client.get(content(job), headers=headers).status_code == 200


# Ranges


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("Bytes=2-5", CLIP[2:6]),
        ("BYTES=-4", CLIP[-4:]),
        ("bytes=-999999", CLIP),
        ("bytes=0-18446744073709551615", CLIP),
        ("bytes= 2-5 ,", CLIP[2:6]),
        ("bytes=999999-,2-5", CLIP[2:6]),
        ("bytes=-0,2-5", CLIP[2:6]),
        ("bytes=2-3,4-5", CLIP[2:6]),
    ],
)
def test_ranges_are_read_as_http_writes_them(client: TestClient, job: Job, asked: str, part: bytes) -> None:
    answer = client.get(content(job), headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, part)


def test_several_ranges_come_in_several_parts(client: TestClient, job: Job) -> None:
    answer = client.get(content(job), headers={"Range": "bytes=0-1,8-9,-3"})
    assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (206, "multipart/byteranges")
    size = len(CLIP)
    for first, last in ((0, 1), (8, 9), (size - 3, size - 1)):
        assert f"Content-Range: bytes {first}-{last}/{size}\r\n\r\n".encode() + CLIP[first : last + 1] in answer.content
    assert int(answer.headers["content-length"]) == len(answer.content)


@pytest.mark.parametrize("asked", ["bytes=999999-", "bytes=-0", "bytes=999999-,888888-"])
def test_where_all_lies_behind_the_end_nothing_can_be_had(client: TestClient, job: Job, asked: str) -> None:
    answer = client.get(content(job), headers={"Range": asked})
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(CLIP)}")


def test_head_has_no_ranges(client: TestClient, job: Job) -> None:
    answer = client.head(content(job), headers={"Range": "bytes=0-1"})
    assert (answer.status_code, answer.headers["accept-ranges"]) == (200, "bytes")
    assert int(answer.headers["content-length"]) == len(CLIP)


@pytest.mark.parametrize(("tag", "status"), [(ETAG, 206), ('"x"', 200), (f"W/{ETAG}", 200)])
def test_a_range_of_another_file_is_not_sent(client: TestClient, job: Job, tag: str, status: int) -> None:
    assert client.get(content(job), headers={"If-Range": tag, "Range": "bytes=0-1"}).status_code == status


@pytest.mark.parametrize(("later_s", "status"), [(0, 206), (-3600, 200)])
def test_a_range_of_a_file_of_a_date_is_sent(
    client: TestClient, stage: Stage, job: Job, later_s: int, status: int
) -> None:
    date = formatdate(int(stage.folder.video(job).stat().st_mtime) + later_s, usegmt=True)
    assert client.get(content(job), headers={"If-Range": date, "Range": "bytes=0-1"}).status_code == status


def test_a_known_file_is_not_sent_in_ranges_either(client: TestClient, job: Job) -> None:
    answer = client.get(content(job), headers={"If-None-Match": ETAG, "Range": "bytes=0-1"})
    assert answer.status_code == 304
