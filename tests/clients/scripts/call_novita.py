"""Novita's Python client, which has no method for this model, but all that its other methods are made of.

Reads {url, key, method, arguments} as JSON from stdin; the methods are those of the functions below. Its
last line is {"value": ...}, or what was raised: {"error": its class, "message": ...}.
"""

import base64
import json
import sys

import novita_client
from novita_client.proto import V3AsyncSubmitResponse

call = json.load(sys.stdin)
client = novita_client.NovitaClient(call["key"], call["url"])


def submit(body):
    answer = client._post("/v3/async/hunyuan-video-fast", body)
    return V3AsyncSubmitResponse.from_dict(answer).task_id


def result(task_id):
    return client.async_task_result(task_id).to_dict()


def wait(task_id):
    """What its txt2video does once it has submitted, with all states on the way."""
    seen = []
    found = client.wait_for_task_v3(task_id, callback=lambda state: seen.append(state.task.to_dict()))
    found.download_videos()
    videos = [base64.b64encode(video).decode() for video in getattr(found, "video_bytes", [])]
    return {"result": found.to_dict(), "seen": seen, "videos": videos}


try:
    answer = {"value": {"submit": submit, "result": result, "wait": wait}[call["method"]](*call["arguments"])}
except novita_client.NovitaError as error:
    answer = {"error": type(error).__name__, "message": str(error)}
print(json.dumps(answer))
