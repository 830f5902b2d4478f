"""The process of a phase: gets its task as a JSON file, and saves its record next to it during the work."""

from __future__ import annotations

import contextlib
import importlib
import json
import socket
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hunyuan_local.durable import replacing
from hunyuan_local.errors import HunyuanLocalError
from hunyuan_local.supervision import end_with_parent, parent_connection

RECORD, TASK, BEGIN = "record.json", "task.json", b"\n"
_SLOW = ("videos", "attention")  # import the libraries


class Record(dict[str, Any]):
    """What a phase has measured so far; what was saved outlives the process."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def save(self) -> None:
        """Replace the file."""
        with replacing(self.folder / RECORD) as partial:
            partial.write_text(json.dumps(self))

    @contextlib.contextmanager
    def row(self, **fields: Any) -> Iterator[dict[str, Any]]:
        """A row of ``rows`` to fill; an error inside becomes its ``error``, because any is a result; saves."""
        from hunyuan_local.pipeline.memory.device import free_device

        free_device()  # also of what an error before has kept
        row = dict(fields)
        self.setdefault("rows", []).append(row)
        try:
            yield row
        except Exception as error:  # such as a missing library, or a GPU without the number format
            row["error"] = f"{type(error).__name__}: {str(error).strip()}".split("\n")[0]
        self.save()


def do(function: str, arguments: dict[str, Any], record: Record) -> int:
    """Call ``module:function`` of this package with the record and the arguments; return the exit code.

    An error is saved as the record's ``error``.
    """
    module, name = function.split(":")
    try:
        getattr(importlib.import_module(f".{module}", __package__), name)(record, **arguments)
    except Exception as error:  # any error is a result about this machine
        if not isinstance(error, HunyuanLocalError):
            traceback.print_exc()
        record["error"] = {
            "type": type(error).__name__,
            "stage": getattr(error, "stage", None) or record.get("stage"),
            "message": (str(error).strip() or type(error).__name__).split("\n")[0],
            "peak_bytes": getattr(error, "peak_bytes", None),  # of the GPU, if its memory ran out
        }
    record.save()
    return 1 if record.get("error") else 0


def wait_and_do(folder: Path, connection: socket.socket) -> int:
    """Import the libraries, wait for the task and do it; return the exit code."""
    for module in _SLOW:
        importlib.import_module(f".{module}", __package__)
    if connection.recv(len(BEGIN)) != BEGIN:
        return 0  # the parent has ended, or its time is over
    end_with_parent(connection)
    return do(**json.loads((folder / TASK).read_text()), record=Record(folder))


if __name__ == "__main__":
    sys.exit(wait_and_do(Path(sys.argv[1]), parent_connection()))
