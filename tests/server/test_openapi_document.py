"""Our OpenAPI document checked against the app with schemathesis: statuses, content types and bodies."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings

from hunyuan_local.config import load_model_config
from hunyuan_local.jobs.database import Database
from hunyuan_local.jobs.folder import DataFolder
from hunyuan_local.jobs.worker_reports import WorkerReport, WorkerReports
from hunyuan_local.server.app import create_app
from hunyuan_local.server.config import ServerConfig

TINY = load_model_config("tiny")


def test_every_answer_is_as_documented(tmp_path: Path) -> None:
    """All operations in one test, without schemathesis' plug-in for pytest."""
    import schemathesis
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    # With a worker, so that /readyz reports ready, and a queue that does not fill up.
    folder = DataFolder(tmp_path / "data")
    report = WorkerReport(name="w", pid=1, model=TINY.identity, device="cpu", state="idle")
    WorkerReports(Database(folder.root / "jobs.sqlite3", lambda: 4e9)).report(report)  # never expires
    config = ServerConfig(model=TINY, insecure=True, min_free_bytes=0, max_queue=10**6, sync_timeout_s=0)
    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(config, folder, folder.store()))

    tried = []
    for operation in (found.ok() for found in schema.get_all_operations()):
        # A path may contain any text: without a body or a query, no request is invalid.
        may_be_wrong = bool(operation.body or operation.query)
        for mode in schemathesis.GenerationMode if may_be_wrong else [schemathesis.GenerationMode.POSITIVE]:

            @settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck), database=None)
            @given(case=operation.as_strategy(generation_mode=mode))
            def answers(case: schemathesis.Case) -> None:
                # JSON Schema cannot express the grid of sides and frames, or that two fields must agree:
                # requests that match the document may still be refused.
                case.call_and_validate(excluded_checks=[positive_data_acceptance])

            answers()
            tried.append(mode)
    assert len(tried) > 25 and len(set(tried)) == 2
