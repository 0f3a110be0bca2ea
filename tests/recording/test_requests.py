"""What operators ask is a row, and the voice application's output metrics are counted from the rows."""

import pytest

from edge_runtime.core.clock import monotonic_ns
from edge_runtime.core.messages import Command, OperatorRequest
from edge_runtime.recording.journal import Journal
from edge_runtime.recording.reader import JournalReader
from edge_runtime.recording.records import RunInfo


def request(**more) -> OperatorRequest:
    values = {
        "source": "wake", "opened_ns": monotonic_ns(), "start_ns": 1, "end_ns": 2, "transcript": "oil",
        "confidence": 0.9, "command": None, "results": ("D02",), "redo": 0, "choice": None, "outcome": "answered",
        "reason": "", "origin": "commands-embed@1",
    }  # fmt: skip
    return OperatorRequest(**{**values, **more})


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "journal.db", RunInfo())
    journal.start()
    yield journal
    journal.stop()


def test_a_request_is_a_row(journal):
    journal.requested(request(command=Command.STOP_LINE, outcome="done", choice=None))
    assert journal.flush(5.0)
    with JournalReader(journal.path) as reader:
        (row,) = reader.requests()
    assert (row["command"], row["results"], row["transcript"], row["outcome"]) == ("stop line", ["D02"], "oil", "done")


def test_the_output_metrics_are_counted_from_the_rows(journal):
    for one in (
        request(choice="D02"),
        request(outcome="empty", results=()),
        request(outcome="unheard", results=(), redo=1),
        request(outcome="silent", start_ns=None, end_ns=None),
        request(source="typed", origin=""),
    ):
        journal.requested(one)
    assert journal.flush(5.0)
    with JournalReader(journal.path) as reader:
        figures = reader.request_figures()
    assert figures["requests"] == 5
    assert figures["null_results"] == 0.5  # 2 of the 4 that said anything
    assert (figures["redo"], figures["typed"], figures["chosen"]) == (0.2, 0.2, 0.5)


def test_figures_without_requests_are_unknown_not_zero(journal):
    assert journal.flush(5.0)
    with JournalReader(journal.path) as reader:
        assert reader.request_figures()["null_results"] is None


def test_a_malformed_request_costs_only_itself(journal):
    journal.requested(request(confidence="loud"))
    journal.requested(request())
    journal.flush(5.0)
    with JournalReader(journal.path) as reader:
        assert len(reader.requests()) == 1
        assert reader.losses()[0]["what"] == "request"
