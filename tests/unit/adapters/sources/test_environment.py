"""Secrets come from the environment, and stay out of messages."""

from __future__ import annotations

import pytest

from mulle.adapters.sources.environment import filled, hidden
from mulle.core.errors import UsageError


def test_names_are_filled_and_a_missing_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_USER", "ada")
    monkeypatch.setenv("A_PASSWORD", "x$y")
    monkeypatch.delenv("A_HOST", raising=False)
    assert filled("db://${A_USER}:${A_PASSWORD}@h/$plain") == "db://ada:x$y@h/$plain"
    with pytest.raises(UsageError, match="A_HOST") as caught:
        filled("db://${A_USER}:${A_PASSWORD}@${A_HOST}")
    assert caught.value.facts == {"variable": "A_HOST"}
    assert "x$y" not in str(caught.value)


def test_values_are_hidden_longest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SHORT", "key")
    monkeypatch.setenv("A_LONG", "key-and-more")
    assert hidden("key-and-more, key", "${A_SHORT}", "${A_LONG}") == "***, ***"
