"""Calls one method of WaveSpeed's Python client, of whichever version is on the path.

Reads {url, key, method, arguments, options} as JSON from stdin. Its last line is {"value": ...}, or what
was raised: {"error": the names of its class and of those above it, "message": ..., "version": ...}.
"""

import json
import sys

import wavespeed

call = json.load(sys.stdin)
client = wavespeed.Client(call["key"], call["url"], retry_interval=0.1)
try:
    answer = {"value": getattr(client, call["method"])(*call["arguments"], **call["options"])}
except Exception as error:
    kinds = [cls.__name__ for cls in type(error).__mro__]
    answer = {"error": kinds, "message": str(error), "version": wavespeed.__version__}
print(json.dumps(answer))
