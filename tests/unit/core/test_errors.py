"""What every error carries, also across processes."""

from __future__ import annotations

import pickle

import pytest

from mulle.core import errors
from mulle.core.errors import MulleError

KINDS = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_an_error_survives_the_way_between_processes(kind: type[MulleError]) -> None:
    found = pickle.loads(pickle.dumps(kind("tried and found", next="do this", row=3)))
    assert (type(found), found.detail, found.next, found.facts) == (kind, "tried and found", "do this", {"row": 3})


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_an_error_is_a_problem_document_with_an_exit_code(kind: type[MulleError]) -> None:
    problem = kind("why", next="then", model="m").problem(request_id="r")
    assert problem["type"].startswith("https://mulle.dev/errors/")
    assert {"title", "status", "detail", "next", "retryable", "model", "request_id"} <= set(problem)
    assert kind.exit_code in {1, 2, 3}
    assert kind.retryable == (kind.exit_code == 3)
