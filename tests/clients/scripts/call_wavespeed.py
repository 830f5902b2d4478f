"""Calls methods of WaveSpeed's Python client, in the version on the path.

Reads {url, key, method, arguments, options} as a line of JSON from stdin, and the next one after the answer. An answer
is "answer: " and {"value": ...}, or what was raised: {"error": the names of its class and of those above it,
"message": ..., "version": ...}.
"""

import json
import sys

import wavespeed

for line in sys.stdin:
    call = json.loads(line)
    client = wavespeed.Client(call["key"], call["url"], retry_interval=0.1)
    try:
        answer = {"value": getattr(client, call["method"])(*call["arguments"], **call["options"])}
    except Exception as error:
        kinds = [cls.__name__ for cls in type(error).__mro__]
        answer = {"error": kinds, "message": str(error), "version": wavespeed.__version__}
    print(f"answer: {json.dumps(answer)}", flush=True)
