"""The package's errors survive pickling between processes."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable

import pytest

from hunyuan_local import errors
from hunyuan_local.errors import FieldProblem, HunyuanLocalError, Loss
from hunyuan_local.schema import SafetyVerdict
from hunyuan_local.server.error_answers import NoPlaceError, UnknownJobError
from hunyuan_local.server.webhook_call import CallFailedError

PROBLEMS = [FieldProblem("width", 1281, "must be a multiple of 16; use 1280"), FieldProblem("seed", -1, "too small")]
LOSSES = [Loss("seed", 2**40, "at most 2**31", becomes=7), Loss("fps", 30, "always 24", permissible=False)]
VERDICT = SafetyVerdict(flagged=True, score=0.9, label="nsfw", frame=3, threshold=0.5, frames=5, model="owner/name")
# Arguments for classes whose message alone is not enough, or would leave fields unset.
ARGUMENTS: dict[type[HunyuanLocalError], tuple[object, ...]] = {
    errors.InvalidRequestError: (PROBLEMS,),
    errors.RequestLossError: (LOSSES,),
    errors.GpuMemoryError: ("it ran out", "decode", 2**30),
    errors.RewriteError: ("no answer", True),
    errors.ContentBlockedError: ("withheld", VERDICT),
    errors.RateLimitError: ("too many requests", 2.5),
    UnknownJobError: ("job-1",),
    NoPlaceError: ("the queue is full", 12.3),
}
KINDS = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, HunyuanLocalError)
] + [UnknownJobError, NoPlaceError]  # fmt: skip

WAYS: dict[str, Callable[[HunyuanLocalError], HunyuanLocalError]] = {"copy": copy.copy, "deepcopy": copy.deepcopy} | {
    f"pickle-{protocol}": lambda error, protocol=protocol: pickle.loads(pickle.dumps(error, protocol))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
}


def made(kind: type[HunyuanLocalError]) -> HunyuanLocalError:
    error = kind(*ARGUMENTS.get(kind, ("width=1281: must be a multiple of 16; use 1280",)))
    error.hint = "run 'hunyuan-local hosted resume 1'"
    error.add_note("rank 1 of 2")
    return error


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_of_an_error_says_the_same(kind: type[HunyuanLocalError]) -> None:
    error = made(kind)
    for way, copied in WAYS.items():
        found = copied(error)
        assert type(found) is kind, way
        assert (str(found), vars(found), found.exit_code) == (str(error), vars(error), error.exit_code), way


def test_a_field_that_only_a_name_sets_survives() -> None:
    assert copy.copy(CallFailedError("410 Gone", final=True)).final
