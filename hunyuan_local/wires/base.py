"""What all dialects share: the shape of what they make and take, and how foreign JSON is checked.

Every dialect module has these functions and constants, and no I/O:

    NAME, CAPABILITIES
    request_to_wire(request, *, allow_loss=False) -> WireRequest      the body that asks for a video
    request_from_wire(body, query=None, *, relaxed=False) -> Submission
    submission_to_wire(job, base_url) -> Reply                        the answer to it
    submission_from_wire(body) -> job id
    job_to_wire(job, base_url) -> Reply                               the state of a job
    job_from_wire(body) -> JobView
    fault_to_wire(fault) -> (HTTP status, Reply)                      what went wrong with a call
    fault_from_wire(status, body) -> Fault

The models of all these bodies stand in the dialect's ``..._models`` module; ``SubmissionBody`` is what a
submission says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from ..capabilities import Capabilities, settle
from ..checks import field_problems
from ..errors import FieldProblem, InvalidAnswerError, InvalidRequestError, Loss
from ..schema import GenerationRequest, JobStatus
from .wording import Said, in_its_words

FaultKind = Literal[
    "no_key", "invalid", "unauthorized", "forbidden", "not_found", "method_not_allowed", "conflict", "too_large",
    "rate_limited", "not_supported", "unavailable", "internal",
]  # fmt: skip
# HTTP's own meaning. A dialect may differ; of two kinds with one status the later is what it is read as.
HTTP_STATUSES: dict[FaultKind, int] = {
    "no_key": 401,
    "invalid": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "conflict": 409,
    "too_large": 413,
    "rate_limited": 429,
    "internal": 500,
    "not_supported": 501,
    "unavailable": 503,
}
# More of either is no mistake to be explained one by one.
_MOST_FIELDS = 100
_MOST_PROBLEMS = 10


@dataclass(frozen=True)
class WireRequest:
    """A body ready to be sent, the request that it says, and what was lost on the way."""

    body: dict[str, Any]
    request: GenerationRequest
    losses: tuple[Loss, ...]


@dataclass(frozen=True)
class Submission:
    """A body that was received: the request, and how its sender wants the answer.

    ``wait`` asks for the answer only when the video is there, ``inline`` for the file itself in the
    answer instead of an address, ``webhook`` for a call to that URL at the end. ``said`` is how the body
    says our fields, for messages.
    """

    request: GenerationRequest
    wait: bool = False
    inline: bool = False
    webhook: str | None = None
    said: Mapping[str, Said] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Listing:
    """Which jobs a list should hold, the newest first unless ``oldest_first``.

    ``after`` is the id of the last job seen; ``offset`` so many are left out; ``created_from`` is
    included, ``created_before`` is not; no ``statuses`` means all; ``impossible`` that no job of
    this server can meet what was asked.
    """

    limit: int
    offset: int = 0
    after: str | None = None
    oldest_first: bool = False
    statuses: tuple[JobStatus, ...] = ()
    created_from: datetime | None = None
    created_before: datetime | None = None
    impossible: bool = False


@dataclass(frozen=True)
class Fault:
    """Why a call was not carried out.

    ``field`` is the one at fault, in the dialect's own name. ``nothing_made`` is false where a
    refused submission may have made a task all the same: a server error that no page describes.
    """

    kind: FaultKind
    message: str
    field: str | None = None
    nothing_made: bool = True


class Body(BaseModel):
    """A received JSON object: types as they are, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Reply(BaseModel):
    """A JSON object that a server sends: types as they are. A field with a default is sent only where it is given."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    def to_json(self) -> dict[str, Any]:
        """The JSON object, its keys in the order of the fields."""
        return self.model_dump(exclude_unset=True)


def unless_none(**fields: Any) -> dict[str, Any]:
    """The fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


class Answer(BaseModel):
    """A service's JSON object: what we rely on is checked, what else it says is left alone."""

    model_config = ConfigDict(extra="ignore", frozen=True)


T = TypeVar("T")


def _or_none(value: object, check: ValidatorFunctionWrapHandler) -> object:
    try:
        return check(value)
    except ValidationError:
        return None


# A field of an answer that nothing depends on: of another type or range it counts as unsaid. A paid
# video must not be lost because of a time stamp.
Lenient = Annotated[T | None, WrapValidator(_or_none)]

B = TypeVar("B", bound=Body)
A = TypeVar("A", bound=Answer)


def read_body(model: type[B], body: object) -> B:
    """A received body as ``model``.

    Raises:
        InvalidRequestError: naming each field in the dialect's own words.
    """
    if not isinstance(body, Mapping):
        raise InvalidRequestError([FieldProblem("body", body, "must be a JSON object")])
    if len(body) > _MOST_FIELDS:
        raise InvalidRequestError([FieldProblem("body", "...", f"has {len(body)} fields; send those that are known")])
    try:
        return model.model_validate(dict(body))
    except ValidationError as error:
        problems = zip(field_problems(model, error), error.errors(), strict=True)
        named = [_inner(problem, item["loc"]) for problem, item in problems]
        raise InvalidRequestError(named[:_MOST_PROBLEMS]) from error


def read_query(model: type[B], query: Mapping[str, str]) -> B:
    """The parameters of a URL as ``model``; those that it does not know are left alone, as everywhere on the web.

    Raises:
        InvalidRequestError: naming each parameter in the dialect's own words.
    """
    return read_body(model, {name: query[name] for name in model.model_fields if name in query})


def _inner(problem: FieldProblem, place: tuple[int | str, ...]) -> FieldProblem:
    """A problem inside an object, named by its whole path; the outer fields are of no help there."""
    if len(place) < 2:
        return problem
    rule = "unknown field; leave it out" if problem.rule.startswith("unknown field") else problem.rule
    return replace(problem, field=".".join(map(str, place)), rule=rule)


def read_answer(model: type[A], body: object, service: str) -> A:
    """A service's answer as ``model``.

    Raises:
        InvalidAnswerError: naming the first field that is missing or of another type.
    """
    try:
        return model.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the answer"
        raise InvalidAnswerError(
            f"{service} sent an answer that does not fit its documentation: {place}: {first['msg'].lower()}; "
            "its format may have changed"
        ) from error


def known(words: Mapping[str, JobStatus], word: str, service: str) -> JobStatus:
    """Our word for a service's ``word``.

    Raises:
        InvalidAnswerError: the service does not document that word.
    """
    if word not in words:
        raise InvalidAnswerError(
            f"{service} sent the status {word!r}, which it does not document; known are {', '.join(words)}"
        )
    return words[word]


def make_request(
    target: str, limits: Capabilities, said: Mapping[str, Said], relaxed: bool, **fields: Any
) -> GenerationRequest:
    """The request that a received body says, within the dialect's limits unless ``relaxed``.

    Args:
        said: how the body says our fields where it differs, for messages.

    Raises:
        InvalidRequestError: naming each field as the dialect does, with the value that was sent.
    """
    problems: list[FieldProblem] = []
    sides = (fields.get("width"), fields.get("height"))
    if not relaxed and limits.sizes and None not in sides and sides not in limits.sizes:
        # Said at once: the nearest multiples of 16 would be refused next.
        made = " and ".join(f"{width}x{height}" for width, height in limits.sizes)
        problems.append(FieldProblem("size", f"{sides[0]}x{sides[1]}", f"{target} makes {made}"))
        fields |= dict(zip(("width", "height"), limits.sizes[0], strict=True))
    try:
        request = GenerationRequest(**fields)
        request = request if relaxed else settle(request, target, limits).request
    except InvalidRequestError as error:
        problems += error.problems
    if problems:
        raise InvalidRequestError(in_its_words(problems, said))
    return request
