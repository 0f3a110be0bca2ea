"""`search`, as people and scripts call it."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from edge_runtime.cli.main import Session
from edge_runtime.cli.search_cmd import search


@pytest.fixture
def run(tmp_path):
    session = Session("embedded", [f"recording.state_dir={json.dumps(str(tmp_path))}"])
    return lambda *args: CliRunner().invoke(search, list(args), obj=session)


def test_a_code_that_is_there_stands_alone(run):
    result = run("code", "alpha", "seven", "four", "two", "--json")
    document = json.loads(result.stdout)
    assert ([hit["code"] for hit in document["results"]], document["near"], result.exit_code) == (["A742"], [], 0)


def test_a_code_one_symbol_off_is_told_and_not_found(run):
    result = run("code", "alpha", "seven", "four", "one", "--json")
    document = json.loads(result.stdout)
    assert (document["results"], document["near"], result.exit_code) == ([], ["A742", "A743"], 1)
    result = run("a741")
    assert (result.stdout, result.exit_code) == ("no A741; one symbol off: A742, A743\n", 1)


def test_nothing_found_and_nothing_near_is_said(run):
    assert run("zebra").stdout == "nothing found for 'zebra'\n"
    assert json.loads(run("zebra", "--json").stdout) == {"text": "zebra", "results": [], "near": []}
