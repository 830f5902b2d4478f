"""Our own OpenAPI document held against the app by schemathesis: statuses, content types and bodies as promised."""

from __future__ import annotations

import tempfile
from pathlib import Path

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from hunyuan_local.config import load_model_config
from hunyuan_local.jobs.database import Database
from hunyuan_local.jobs.folder import DataFolder
from hunyuan_local.jobs.roster import Roster, WorkerReport
from hunyuan_local.server.app import create_app
from hunyuan_local.server.config import ServerConfig

TINY = load_model_config("tiny")


FOLDER = tempfile.TemporaryDirectory()  # removed at the end of the process; the cases are made at import


def make_document() -> schemathesis.openapi.OpenApiSchema:
    """The document of a server with a worker, for /readyz to be ready, and a queue that does not fill up."""
    folder = DataFolder(Path(FOLDER.name))
    report = WorkerReport(name="w", pid=1, model=TINY.identity, device="cpu", state="idle")
    Roster(Database(folder.root / "jobs.sqlite3", lambda: 4e9)).report(report)  # never too old
    config = ServerConfig(model=TINY, insecure=True, min_free_bytes=0, max_queue=10**6, sync_timeout_s=0.1)
    return schemathesis.openapi.from_asgi("/openapi.json", create_app(config, folder, folder.store()))


schema = make_document()


@schema.parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_as_documented(case: schemathesis.Case) -> None:
    # JSON Schema cannot say that sides and frames belong to a grid, or that two fields must agree:
    # what fits the document may still be refused.
    case.call_and_validate(excluded_checks=[positive_data_acceptance])
