"""Scenario files: the requests that they describe, and invalid files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hunyuan_local.bench.run.scenarios import ScenarioFile, read_scenarios, scenario_names
from hunyuan_local.errors import ConfigError
from hunyuan_local.wires import novita, wavespeed

GOOD = """
name: mine
scenarios:
  - name: a
    prompts: [one, two]
    sizes: [1280x720, 720*1280]
    num_inference_steps: [2, 10]
    num_frames: [null, 85]
    seeds: [1, 2]
    guidance_scale: 6
"""
Read = Callable[..., ScenarioFile]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Writes ``content``, with ``old`` replaced by ``new``, to a file and reads it as scenarios."""

    def read(content: str = GOOD, old: str = "", new: str = "") -> ScenarioFile:
        assert old in content
        (tmp_path / "mine.yaml").write_text(content.replace(old, new) if old else content)
        return read_scenarios(str(tmp_path / "mine.yaml"))

    return read


def test_a_scenario_is_every_combination_of_its_lists(read: Read) -> None:
    requests = read().scenarios[0].requests()
    assert len(requests) == len(set(requests)) == 32
    assert {(r.width, r.height) for r in requests} == {(1280, 720), (720, 1280)}
    assert {r.num_frames for r in requests} == {None, 85}
    assert {r.guidance_scale for r in requests} == {6.0}


def test_frames_may_be_left_to_the_backend(read: Read) -> None:
    requests = read(GOOD, "    num_frames: [null, 85]\n", "").scenarios[0].requests()
    assert {request.num_frames for request in requests} == {None}


def test_what_is_left_out_has_its_default(read: Read) -> None:
    file = read()
    assert (file.repeats, file.warmup.local, file.warmup.hosted, file.allow_loss, file.costs) == (3, 1, 0, False, None)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("scenarios:", "scenarioz: 1\nscenarios:", r"scenarioz: unknown key; known are name, repeats, warmup"),
        ("    seeds", "    seed: [1]\n    seeds", r"scenarios\.'a'\.seed: unknown key; known are name, prompts"),
        (
            "scenarios:",
            "costs: {watts: 3}\nscenarios:",
            r"costs\.watts: unknown key; known are electricity",
        ),
        ("scenarios:", "warmup: {gpu: 3}\nscenarios:", r"warmup\.gpu: unknown key; known are local, hosted"),
        ("[one, two]", "[]", r"scenarios\.'a'\.prompts: .*at least 1"),
        ("[2, 10]", "[]", r"num_inference_steps: .*at least 1"),
        ("[2, 10]", "['2']", r"num_inference_steps\.0: .*integer, not '2'"),
        ("[2, 10]", "[true]", r"num_inference_steps\.0: .*integer, not True"),
        ("[2, 10]", "[101]", r"scenarios\.'a': num_inference_steps=101"),
        ("[null, 85]", "[86]", r"scenarios\.'a': num_frames=86: .*85 and 89"),
        ("720*1280", "720p", r"scenarios\.'a': size='720p'"),
        ("720*1280", "1280*720", "two of its requests are the same"),
        ("[1, 2]", "[1, 1]", r"seeds: 1 is listed more than once"),
        ("[1, 2]", str([*range(3000)]), r"scenarios\.'a': its lists multiply to 48000 requests; the limit is 10000"),
        ("    seeds", "    backends: [wavespede]\n    seeds", r"backends: 'wavespede' is not a backend; use local"),
        ("name: mine", "name: my bench", r"name: "),
        ("name: mine", "name: mine\nrepeats: 0", r"repeats: .*greater than or equal to 1"),
    ],
)
def test_invalid_values_are_refused_with_their_place(read: Read, old: str, new: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read(GOOD, old, new)


def test_two_scenarios_of_one_name_are_refused(read: Read) -> None:
    with pytest.raises(ConfigError, match="name='a' is used more than once"):
        read(GOOD + GOOD[GOOD.index("  - name: a") :])


@pytest.mark.parametrize("content", ["", "- 1", "a: [", "3"])
def test_a_file_that_is_not_a_mapping_is_refused(read: Read, content: str) -> None:
    with pytest.raises(ConfigError, match=r"mapping|YAML"):
        read(content)


def test_a_file_that_is_not_there_is_refused_with_the_names_that_are() -> None:
    with pytest.raises(ConfigError, match=r"scenarios='nope'.*default, smoke"):
        read_scenarios("nope")


@pytest.mark.parametrize("name", scenario_names())
def test_every_file_that_comes_along_is_sound(name: str) -> None:
    assert read_scenarios(name).name == name


@pytest.mark.parametrize("wire", [wavespeed, novita])
def test_the_services_can_hold_all_that_they_are_asked_for_by_default(wire: object) -> None:
    asked = [
        request
        for scenario in read_scenarios("default").scenarios
        if not scenario.backends or wire.NAME in scenario.backends
        for request in scenario.requests()
    ]
    assert len(asked) == 6
    assert [wire.request_to_wire(request).losses for request in asked] == [()] * 6
