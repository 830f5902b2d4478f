"""The common part of all dialects: their shared types, and the validation of JSON from outside.

Every dialect module has these functions and constants, and no I/O:

    NAME, CAPABILITIES
    request_to_wire(request, *, allow_loss=False) -> WireRequest      the body of a submission
    request_from_wire(body, query=None, *, relaxed=False) -> Submission
    submission_to_wire(job, base_url) -> Reply                        the answer to a submission
    submission_from_wire(body) -> job id
    job_to_wire(job, base_url) -> Reply                               the state of a job
    job_from_wire(body) -> JobView
    fault_to_wire(fault) -> (HTTP status, Reply)                      the error of a call
    fault_from_wire(status, body) -> Fault

The models of these bodies are in the dialect's ``..._models`` module; ``SubmissionBody`` is the body of a submission.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from ..capabilities import Capabilities, settle
from ..errors import FieldProblem, InvalidAnswerError, InvalidRequestError, Loss
from ..field_checks import field_problems
from ..images import InputImage
from ..schema import MAX_SEED, TEMPORAL_COMPRESSION, GenerationRequest, JobStatus, field_limits
from .sent_image import SentImage
from .wording import Said, in_its_words

FaultKind = Literal[
    "no_key", "invalid", "unauthorized", "forbidden", "not_found", "method_not_allowed", "conflict", "too_large",
    "rate_limited", "not_supported", "unavailable", "internal",
]  # fmt: skip
# Standard HTTP statuses; a dialect may use others. If two kinds share a status, it is read as the later kind.
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
# Limits on the fields of a body and on the problems listed in one error.
_MOST_FIELDS = 100
_MOST_PROBLEMS = 10


@dataclass(frozen=True)
class WireRequest:
    """A body to send, the request that it expresses, and the losses of the conversion."""

    body: dict[str, Any]
    request: GenerationRequest
    losses: tuple[Loss, ...]


@dataclass(frozen=True)
class Submission:
    """A parsed submission: the request, and how the client wants the answer.

    ``wait`` delays the answer until the video is finished, ``inline`` puts the file itself into the answer instead of
    a URL, and ``webhook`` is a URL to call at the end. ``said`` maps our fields to those of the body, for messages.
    ``image`` is not part of the request until :meth:`with_image`.
    """

    request: GenerationRequest
    wait: bool = False
    inline: bool = False
    webhook: str | None = None
    said: Mapping[str, Said] = field(default_factory=dict, compare=False)
    image: SentImage | None = None

    def with_image(self, checked: InputImage) -> Submission:
        """Return the submission with the checked image in its request, in place of the sent one."""
        assert self.image is not None
        request = self.request.replace(image=checked, image_fit=self.image.fit)
        said = dict(self.said) | {"image": Said(self.image.field, self.image.shown)}
        return replace(self, request=request.with_defaults({}, self.image.sizes), said=said, image=None)


@dataclass(frozen=True)
class Listing:
    """The page of jobs that a client requests, newest first unless ``oldest_first``.

    ``after`` is the id of the last job of the previous page, and ``offset`` the number of jobs to skip.
    ``created_from`` is inclusive, ``created_before`` exclusive. Empty ``statuses`` means all. ``has_image`` selects
    jobs with or without an input image; None means all. ``impossible`` means that no job of this server can match the
    filters.
    """

    limit: int
    offset: int = 0
    after: str | None = None
    oldest_first: bool = False
    statuses: tuple[JobStatus, ...] = ()
    created_from: datetime | None = None
    created_before: datetime | None = None
    has_image: bool | None = None
    impossible: bool = False


@dataclass(frozen=True)
class Fault:
    """Why a call failed.

    ``field`` is the invalid field, by its name in the dialect. ``nothing_made`` is false if a failed submission may
    still have created a task, as after an undocumented server error.
    """

    kind: FaultKind
    message: str
    field: str | None = None
    nothing_made: bool = True


class Body(BaseModel):
    """A received JSON object: strict types, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Reply(BaseModel):
    """A JSON object that a server sends: strict types; a field with a default is sent only if it is set."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    def to_json(self) -> dict[str, Any]:
        """The JSON object, its keys in the order of the fields."""
        return self.model_dump(exclude_unset=True)


def unless_none(**fields: Any) -> dict[str, Any]:
    """The fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


class Answer(BaseModel):
    """A service's JSON object: fields that we rely on are validated, other fields are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


T = TypeVar("T")


def _or_none(value: object, check: ValidatorFunctionWrapHandler) -> object:
    try:
        return check(value)
    except ValidationError:
        return None


# A field of an answer that nothing depends on: an invalid value counts as None. A paid video must not be lost because
# of a malformed time stamp.
Lenient = Annotated[T | None, WrapValidator(_or_none)]

B = TypeVar("B", bound=Body)
A = TypeVar("A", bound=Answer)


def read_body(model: type[B], body: object) -> B:
    """Validate a received body as ``model``.

    Raises:
        InvalidRequestError: names each invalid field as the dialect does.
    """
    if not isinstance(body, Mapping):
        raise InvalidRequestError([FieldProblem("body", body, "must be a JSON object")])
    if len(body) > _MOST_FIELDS:
        raise InvalidRequestError([FieldProblem("body", "...", f"has {len(body)} fields; send only known fields")])
    try:
        return model.model_validate(dict(body))
    except ValidationError as error:
        problems = zip(field_problems(model, error), error.errors(), strict=True)
        named = [_inner(problem, item["loc"]) for problem, item in problems]
        raise InvalidRequestError(named[:_MOST_PROBLEMS]) from error


def read_query(model: type[B], query: Mapping[str, str]) -> B:
    """Validate the query parameters of a URL as ``model``; unknown parameters are ignored, as is usual on the web.

    Raises:
        InvalidRequestError: names each invalid parameter as the dialect does.
    """
    return read_body(model, {name: query[name] for name in model.model_fields if name in query})


def _inner(problem: FieldProblem, place: tuple[int | str, ...]) -> FieldProblem:
    """A problem inside a nested object, with the full path as its field; a hint about top-level fields is dropped."""
    if len(place) < 2:
        return problem
    rule = "unknown field; remove it" if problem.rule.startswith("unknown field") else problem.rule
    return replace(problem, field=".".join(map(str, place)), rule=rule)


def read_answer(model: type[A], body: object, service: str) -> A:
    """Validate a service's answer as ``model``.

    Raises:
        InvalidAnswerError: names the first field that is missing or has the wrong type.
    """
    try:
        return model.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the answer"
        raise InvalidAnswerError(
            f"the answer from {service} does not match its documentation: {place}: {first['msg'].lower()}; "
            "its format may have changed"
        ) from error


def known(words: Mapping[str, JobStatus], word: str, service: str) -> JobStatus:
    """The job status for a service's status ``word``.

    Raises:
        InvalidAnswerError: the service does not document this word.
    """
    if word not in words:
        raise InvalidAnswerError(f"{service} sent the undocumented status {word!r}; known are {', '.join(words)}")
    return words[word]


def frames_in(seconds: float, fps: float) -> int:
    """The nearest 4k+1 number of frames for a length in seconds."""
    return 1 + TEMPORAL_COMPRESSION * round(max(0, seconds * fps - 1) / TEMPORAL_COMPRESSION)


def _outside(target: str, limits: Capabilities, relaxed: bool, fields: Mapping[str, Any]) -> Iterator[FieldProblem]:
    """Numbers outside of what a body may contain, which is not what a request may: a body has -1 for a random seed."""
    seed = fields.get("seed")
    highest = MAX_SEED if relaxed else limits.seeds[1]
    if seed is not None and not 0 <= seed <= highest:
        last = "2^64-1" if highest == MAX_SEED else highest
        yield FieldProblem("seed", seed, f"{target} supports -1 (a random seed) and 0 to {last}")
    for name, span in (("num_inference_steps", limits.steps), ("num_frames", limits.frames)):
        value, own = fields.get(name), field_limits(name)
        if relaxed or value is None or own is None or span in (None, (own.low, own.high)) or name not in limits.fields:
            continue
        low, high = span
        if not low <= value <= high:
            yield FieldProblem(name, value, f"{target} supports {low} to {high}")


def make_request(
    target: str, limits: Capabilities, said: Mapping[str, Said], relaxed: bool, **fields: Any
) -> GenerationRequest:
    """Build the request of a received body, within the dialect's limits unless ``relaxed``.

    Args:
        said: the body's names and values of our fields where they differ, for messages.

    Raises:
        InvalidRequestError: names each invalid field as the dialect does, with the value that was sent.
    """
    problems: list[FieldProblem] = []
    sides = (fields.get("width"), fields.get("height"))
    if not relaxed and limits.sizes and None not in sides and sides not in limits.sizes:
        # Report the supported sizes right away: the nearest multiples of 16 would be refused next.
        made = " and ".join(f"{width}x{height}" for width, height in limits.sizes)
        problems.append(FieldProblem("size", f"{sides[0]}x{sides[1]}", f"{target} supports {made}"))
        fields |= dict(zip(("width", "height"), limits.sizes[0], strict=True))
    for problem in _outside(target, limits, relaxed, fields):
        problems.append(problem)
        fields[problem.field] = None
    try:
        request = GenerationRequest(**fields)
        request = request if relaxed else settle(request, target, limits).request
    except InvalidRequestError as error:
        problems += error.problems
    if problems:
        raise InvalidRequestError(in_its_words(problems, said))
    return request
