"""The scenario file of a bench: requests, repeats, warm-ups, and the costs of this machine.

Reading the file validates all of it, including every request. The module knows backends only by name.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import yaml
from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from ...backends.registry import backend_names
from ...config import configs_dir
from ...config.places import user_path
from ...config.strict import StrictConfig
from ...config.yaml_file import read_yaml
from ...errors import ConfigError, InvalidRequestError
from ...schema import GenerationRequest, parse_size
from .costs import Costs

DEFAULT = "default"
MAX_REQUESTS = 10_000  # per scenario: reading the file validates every request


class _StrictTypes(StrictConfig):
    """A config that does not convert between text, numbers and booleans."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Warmup(_StrictTypes):
    """Number of warm-ups per size and length, with the fewest steps; excluded from all statistics."""

    local: int = Field(default=1, ge=0, le=100)
    hosted: int = Field(default=0, ge=0, le=100)


class Scenario(_StrictTypes):
    """A set of requests: every combination of the values in its lists.

    Attributes:
        name: name of the scenario in the result.
        prompts, sizes, num_inference_steps, seeds: at least one each; a size is a string such as ``1280x720``.
        num_frames: null leaves the length to the backend (default).
        guidance_scale, flow_shift, fps: the same for all its requests (default: the backend's).
        backends: backends that run the scenario (default: all).
    """

    name: str = Field(min_length=1, max_length=80, pattern=r"^\S(.*\S)?$")
    prompts: list[str] = Field(min_length=1)
    sizes: list[str] = Field(min_length=1)
    num_inference_steps: list[int] = Field(min_length=1)
    num_frames: list[int | None] = Field(default=[None], min_length=1)
    seeds: list[int] = Field(min_length=1)
    guidance_scale: float | None = None
    flow_shift: float | None = None
    fps: int | None = None
    backends: list[str] = Field(default=[])

    @field_validator("prompts", "sizes", "num_inference_steps", "num_frames", "seeds", "backends")
    @classmethod
    def _holds_each_once(cls, values: list[Any]) -> list[Any]:
        if twice := [value for value, count in Counter(values).items() if count > 1]:
            raise ValueError(f"{twice[0]!r} is listed more than once; use repeats to run a request several times")
        return values

    @field_validator("backends")
    @classmethod
    def _are_known(cls, names: list[str]) -> list[str]:
        if unknown := [name for name in names if name not in backend_names()]:
            raise ValueError(f"{unknown[0]!r} is not a backend; use {', '.join(backend_names())}")
        return names

    @model_validator(mode="after")
    def _makes_requests(self) -> Scenario:
        if self.count > MAX_REQUESTS:
            raise ValueError(f"its lists multiply to {self.count} requests; the limit is {MAX_REQUESTS}; remove some")
        try:
            found = self.requests()
        except InvalidRequestError as error:
            raise ValueError(str(error)) from error
        if len(set(found)) < len(found):  # such as of 64x64 and 64*64
            raise ValueError("two of its requests are the same; give each size once")
        return self

    @property
    def count(self) -> int:
        """Number of requests in the scenario."""
        return math.prod(map(len, self._lists))

    @property
    def _lists(self) -> tuple[list[Any], ...]:
        return self.prompts, self.sizes, self.num_frames, self.num_inference_steps, self.seeds

    def requests(self) -> list[GenerationRequest]:
        """Every combination; prompts vary slowest, then sizes, frames, steps and seeds."""
        made = []
        for prompt, size, frames, steps, seed in itertools.product(*self._lists):
            width, height = parse_size(size)
            made.append(
                GenerationRequest(
                    prompt=prompt, width=width, height=height, num_frames=frames, num_inference_steps=steps, seed=seed,
                    guidance_scale=self.guidance_scale, flow_shift=self.flow_shift, fps=self.fps,
                )
            )  # fmt: skip
        return made


class ScenarioFile(_StrictTypes):
    """A scenario file.

    Attributes:
        name: name of the bench.
        repeats: runs per request and backend.
        warmup: number of warm-ups by kind of backend.
        allow_loss: allow fields that a service does not support to be dropped or changed; otherwise the run fails.
        costs: costs of this machine; None leaves the cost of local videos unknown.
    """

    name: str = Field(min_length=1, max_length=60, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    repeats: int = Field(default=3, ge=1, le=10_000)
    warmup: Warmup = Warmup()
    allow_loss: bool = False
    costs: Costs | None = None
    scenarios: list[Scenario] = Field(min_length=1)

    @field_validator("scenarios")
    @classmethod
    def _have_unique_names(cls, scenarios: list[Scenario]) -> list[Scenario]:
        names = [scenario.name for scenario in scenarios]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"name={twice[0]!r} is used more than once; give each scenario a unique name")
        return scenarios

    @property
    def content(self) -> dict[str, Any]:
        """Everything that must stay the same to resume a bench: all fields except the repeats, which may increase."""
        return self.model_dump(mode="json", exclude={"repeats"})


def scenario_names() -> list[str]:
    """Names in ``configs/bench``, sorted."""
    return sorted(path.stem for path in (configs_dir() / "bench").glob("*.yaml"))


def read_scenarios(name: str) -> ScenarioFile:
    """Read the scenario file at this path, or with this name in ``configs/bench``.

    Raises:
        ConfigError: the file does not exist, or is invalid; the message names the place.
    """
    path = configs_dir() / "bench" / f"{name}.yaml" if name in scenario_names() else user_path("scenario", name)
    try:
        content = read_yaml(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"scenarios={name!r}: cannot be read: {reason}; give a YAML file, or one of {', '.join(scenario_names())}"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must be a mapping with {', '.join(ScenarioFile.model_fields)}")
    try:
        return ScenarioFile.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{path}: {'; '.join(_problems(content, error))}") from error


def _problems(content: dict[str, Any], error: ValidationError) -> Iterator[str]:
    for item in error.errors():
        place = ".".join(_steps(content, item["loc"])) or "file"
        if item["type"] == "extra_forbidden":
            yield f"{place}: unknown key; known are {', '.join(_known(item['loc'][:-1]))}"
        else:
            said = item["msg"].removeprefix("Value error, ")
            yield f"{place}: {said}" + (f", not {item['input']!r}" if item["type"].endswith("_type") else "")


def _steps(content: Any, loc: Sequence[int | str]) -> Iterator[str]:
    """Path of an error in the file: scenarios by name, without the type names that pydantic inserts."""
    for step in loc:
        if isinstance(content, dict) and step in content:
            content = content[step]
            yield str(step)
        elif isinstance(content, list) and isinstance(step, int) and step < len(content):
            content = content[step]
            name = content.get("name") if isinstance(content, dict) else None
            yield repr(name) if isinstance(name, str) else str(step)
        elif isinstance(content, dict):
            yield str(step)


def _known(loc: Sequence[int | str]) -> list[str]:
    """Keys allowed at a path."""
    kinds: dict[str, type[StrictConfig]] = {"warmup": Warmup, "costs": Costs, "scenarios": Scenario}
    kind = kinds.get(str(loc[0]), ScenarioFile) if loc else ScenarioFile
    return list(kind.model_fields)
