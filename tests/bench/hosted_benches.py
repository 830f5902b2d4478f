"""Benches at the stand-in for the services, in a test's folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hunyuan_local.backends.hosted.backend import HostedBackend
from hunyuan_local.backends.hosted.open_tasks import OpenTasks
from hunyuan_local.bench.results.result import BenchResult, BenchRun, load_result
from hunyuan_local.bench.run.billing import Bill, make_bills, make_budgets
from hunyuan_local.bench.run.makers import HostedMaker
from hunyuan_local.bench.run.runner import Bench
from hunyuan_local.bench.run.scenarios import ScenarioFile
from hunyuan_local.bench.run.targets import hosted_target

Begin = Callable[..., "Started"]


def scenario_file(**changes: Any) -> ScenarioFile:
    """One request that both services support, run twice."""
    scenario = {"name": "a", "prompts": ["a fox"], "sizes": ["1280x720"], "num_inference_steps": [4], "seeds": [7]}
    scenario |= changes.pop("scenario", {})
    return ScenarioFile.model_validate({"name": "test", "repeats": 2, "scenarios": [scenario]} | changes)


class Started:
    """A bench in a folder, with its parts; a second one in the same folder resumes it."""

    def __init__(
        self, folder: Path, file: ScenarioFile, backends: list[HostedBackend], open_tasks: OpenTasks, **options: Any
    ):
        folder.mkdir(exist_ok=True)
        self.path = folder / "result.json"
        targets = [hosted_target(backend) for backend in backends]
        if options.pop("billed", False):  # the stand-in instead of the service
            targets = [target.model_copy(update={"is_billed": True}) for target in targets]
        result = load_result(self.path) if self.path.exists() else BenchResult(
            name=file.name, created_at="2026-01-01T00:00:00+00:00", machine={}, scenarios=file.content,
            repeats=file.repeats, targets=targets,
        )  # fmt: skip
        result.repeats = file.repeats
        pairs = list(zip(targets, backends, strict=True))
        billed = {target.label: backend.capabilities for target, backend in pairs if target.is_billed}
        budgets = make_budgets(billed, options.pop("max_cost_usd", None), folder / "spent.json")
        self.makers = [
            HostedMaker(
                target, backend, folder / "videos", result.created_at, allow_loss=file.allow_loss,
                open_tasks=open_tasks, spending=budgets.get(target.label),
            )
            for target, backend in pairs
        ]  # fmt: skip
        self.bench = Bench(file, result, self.makers, folder, **options)

    @property
    def bills(self) -> list[Bill]:
        """The bills to confirm before it runs."""
        return make_bills(self.bench.todo, self.makers)

    def run(self) -> list[BenchRun]:
        """Run what is left; return the rows of the file."""
        self.bench.run(lambda number, run: None, lambda number, row: None)
        return load_result(self.path).runs


def states(rows: list[BenchRun]) -> list[str]:
    """Status of each row."""
    return [row.status for row in rows]
