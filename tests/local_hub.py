"""The Hugging Face Hub for tests: a real HTTP server on 127.0.0.1 that implements what its client uses.

Small files come from the server itself, large ones through a redirect to another host, as on the
Hub; every request is written down.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import uvicorn
from server_thread import ServerThread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from hunyuan_local.config import load_model_config
from hunyuan_local.weights.cache import PART
from hunyuan_local.weights.hub import Hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NEXT_COMMIT = "fedcba9876543210fedcba9876543210fedcba98"
REPOSITORY = load_model_config("tiny").model_copy(update={"model_id": "someone/tiny"})
LARGEST = "transformer/diffusion_pytorch_model.safetensors"
MB = 1_000_000
LARGE = (".safetensors", ".bin", ".onnx")  # what the Hub keeps outside git
_PIECE = 65536


@dataclass(frozen=True)
class Call:
    """One received request."""

    method: str
    path: str
    host: str
    headers: dict[str, str]

    @property
    def first_byte(self) -> int:
        """First byte of the requested range, counted from 0."""
        return int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))


def tiny_files() -> dict[str, bytes]:
    """The built-in checkpoint's files by name in its repository, with additional files as in other repositories."""
    folder = Path(load_model_config("tiny").source)
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return files | {
        "README.md": b"# tiny",
        ".gitattributes": b"*.safetensors filter=lfs",
        "transformer/diffusion_pytorch_model.bin": b"pickle",
        "transformer/diffusion_pytorch_model.fp16.safetensors": b"half",
        "vae/model.onnx": b"onnx",
        "tokenizer/special_tokens_map.json": b"{}",
    }


@dataclass
class LocalHub:
    """Open during the ``with`` block; contains the repository ``someone/tiny``.

    Attributes:
        files: the files of the repository, by name.
        commit: the commit of its branch ``main``.
        calls: the requests, in order.
        break_after: from the size of a response with a large file in bytes, returns how many bytes are sent before
            the connection breaks; None sends all.
        stall: a response that would break hangs instead.
        ignore_range: send the whole file, whatever range was requested.
        refuse: (status, error code) for every request about a repository.
        forbid: name of a large file that is not served.
    """

    files: dict[str, bytes] = field(default_factory=tiny_files)
    commit: str = COMMIT
    calls: list[Call] = field(default_factory=list)
    break_after: Callable[[int], int | None] = lambda count: None
    stall: bool = False
    ignore_range: bool = False
    refuse: tuple[int, str] | None = None
    forbid: str | None = None

    def __enter__(self) -> LocalHub:
        routes = [
            Route("/api/models/{owner}/{name}", self._info),
            Route("/api/models/{owner}/{name}/revision/{revision:path}", self._info),
            Route("/api/models/{owner}/{name}/tree/{revision}", self._tree),
            Route("/{owner}/{name}/resolve/{revision}/{file:path}", self._resolve),
            Route("/elsewhere/{sha256}", self._large_file),
        ]
        config = uvicorn.Config(Starlette(routes=routes), log_level="critical", timeout_graceful_shutdown=1)
        self._server = ServerThread(config)
        self.port, self.endpoint = self._server.port, self._server.url
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

    def at(self, cache: Path) -> Hub:
        """Use this Hub with a separate cache."""
        return Hub(self.endpoint, cache)

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """Environment variables that direct a command here."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HUNYUAN_LOCAL_STATE_DIR": str(home / "state"),
            "HF_HUB_OFFLINE": "0",
        } | more

    def asked_for(self, name: str) -> list[Call]:
        """The requests for a large file's content."""
        path = f"/elsewhere/{hashlib.sha256(self.files[name]).hexdigest()}"
        return [call for call in self.calls if call.path == path]

    def part(self, cache: Path, name: str) -> Path:
        """Where a large file is stored during its download; the folder exists."""
        blobs = self.at(cache).repository("someone/tiny") / "blobs"
        blobs.mkdir(parents=True, exist_ok=True)
        return blobs / f"{hashlib.sha256(self.files[name]).hexdigest()}{PART}"

    def _refusal(self, request: Request) -> Response | None:
        """The Hub's error for this request; None if it serves the file."""
        self.calls.append(Call(request.method, request.url.path, request.url.hostname or "", dict(request.headers)))
        status, code = self.refuse or (404, "RepoNotFound")
        known = request.path_params["owner"], request.path_params["name"]
        if self.refuse is None and known == ("someone", "tiny"):
            if request.path_params.get("revision", "main") in ("main", "refs/pr/1", self.commit):
                return None
            code = "RevisionNotFound"
        return JSONResponse({"error": "no"}, status, {"X-Error-Code": code})

    async def _info(self, request: Request) -> Response:
        siblings = [{"rfilename": name} | self._facts(name) for name in self.files]
        return self._refusal(request) or JSONResponse(
            {"id": "someone/tiny", "sha": self.commit, "siblings": siblings, "tags": [], "private": False}
        )

    async def _tree(self, request: Request) -> Response:
        entries = []
        for name in self.files:
            facts = self._facts(name)
            entry = {"type": "file", "path": name, "size": facts["size"], "oid": facts["blobId"]}
            entries.append(entry | ({"lfs": facts["lfs"] | {"oid": facts["lfs"]["sha256"]}} if "lfs" in facts else {}))
        return self._refusal(request) or JSONResponse(entries)

    async def _resolve(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        name = request.path_params["file"]
        if name not in self.files:
            return Response(status_code=404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.commit})
        facts = self._facts(name)
        headers = {"X-Repo-Commit": self.commit, "ETag": f'"{facts["blobId"]}"', "Accept-Ranges": "bytes"}
        if "lfs" not in facts:
            return Response(self.files[name], headers=headers)
        sha256 = facts["lfs"]["sha256"]
        headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(facts["size"])}
        # Another name of this machine: the client must not show its token there.
        return Response(
            status_code=302, headers=headers | {"Location": f"http://localhost:{self.port}/elsewhere/{sha256}"}
        )

    async def _large_file(self, request: Request) -> Response:
        call = Call(request.method, request.url.path, request.url.hostname or "", dict(request.headers))
        self.calls.append(call)
        sha256 = request.path_params["sha256"]
        content = next(data for data in self.files.values() if _sha256(data) == sha256)
        if self.forbid is not None and content == self.files[self.forbid]:
            return Response(status_code=403)
        first = 0 if self.ignore_range else call.first_byte
        headers = {"Content-Length": str(len(content) - first), "ETag": f'"{sha256}"'}
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        return StreamingResponse(self._pieces(content[first:]), 206 if first else 200, headers)

    async def _pieces(self, content: bytes) -> AsyncIterator[bytes]:
        limit = self.break_after(len(content))
        for start in range(0, len(content) if limit is None else min(limit, len(content)), _PIECE):
            yield content[start : start + _PIECE]
        if limit is not None and limit < len(content):
            await asyncio.sleep(3600 if self.stall else 0)  # then the response is shorter than its Content-Length

    def _facts(self, name: str) -> dict[str, Any]:
        content = self.files[name]
        facts: dict[str, Any] = {"size": len(content), "blobId": _git_hash(content)}
        if name.endswith(LARGE):
            facts["lfs"] = {"sha256": _sha256(content), "size": len(content), "pointerSize": 134}
        return facts


@functools.cache  # because the checkpoint's megabytes are the same in all tests
def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@functools.cache
def _git_hash(content: bytes) -> str:
    """The id of a file in git."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
