"""Calls Novita's Python client, which has no method for this model, through the parts of its other methods.

Reads {url, key, method, arguments} as a line of JSON from stdin, and the next one after the answer; the methods are
those of the functions below. An answer is "answer: " and
{"value": ...}, or what was raised: {"error": its class, "message": ...}.
"""

import base64
import json
import sys

import novita_client
from novita_client.proto import V3AsyncSubmitResponse


def submit(client, body):
    answer = client._post("/v3/async/hunyuan-video-fast", body)
    return V3AsyncSubmitResponse.from_dict(answer).task_id


def result(client, task_id):
    return client.async_task_result(task_id).to_dict()


def wait(client, task_id):
    """What its txt2video does after submitting; returns all states until the end."""
    seen = []
    found = client.wait_for_task_v3(task_id, callback=lambda state: seen.append(state.task.to_dict()))
    found.download_videos()
    videos = [base64.b64encode(video).decode() for video in getattr(found, "video_bytes", [])]
    return {"result": found.to_dict(), "seen": seen, "videos": videos}


for line in sys.stdin:
    call = json.loads(line)
    client = novita_client.NovitaClient(call["key"], call["url"])
    method = {"submit": submit, "result": result, "wait": wait}[call["method"]]
    try:
        answer = {"value": method(client, *call["arguments"])}
    except novita_client.NovitaError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    print(f"answer: {json.dumps(answer)}", flush=True)
