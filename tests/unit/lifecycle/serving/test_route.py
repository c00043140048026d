"""A key keeps its version, shares are what was asked, and a growing canary keeps the keys it had."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mulle.kernel.routes import RoutedVersion
from mulle.lifecycle.serving.route import answering, position


def routes(share: float) -> tuple[RoutedVersion, ...]:
    champion = RoutedVersion(version=1, share=1 - share, mode="champion", bundle="a", address="")
    canary = RoutedVersion(version=2, share=share, mode="canary", bundle="b", address="")
    shadow = RoutedVersion(version=3, share=0.0, mode="shadow", bundle="c", address="")
    return champion, canary, shadow


@given(st.text(), st.text())
def test_a_key_has_one_place_on_the_line(text: str, salt: str) -> None:
    assert 0 <= position(text, salt) < 1
    assert position(text, salt) == position(text, salt)


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5])
def test_the_canary_gets_its_share_and_the_shadow_nothing(share: float) -> None:
    chosen = [answering(routes(share), f"key{i}", "salt") for i in range(20_000)]
    assert chosen.count(1) / len(chosen) == pytest.approx(share, abs=0.012)
    assert 2 not in chosen


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_a_growing_canary_keeps_its_keys(text: str, one: float, other: float) -> None:
    small, large = sorted((one, other))
    if answering(routes(small), text, "s") == 1:
        assert answering(routes(large), text, "s") == 1


def test_the_next_canary_has_other_keys() -> None:
    keys = [f"key{i}" for i in range(4000)]
    first = {k for k in keys if answering(routes(0.5), k, "one") == 1}
    second = {k for k in keys if answering(routes(0.5), k, "two") == 1}
    assert len(first & second) / len(first) == pytest.approx(0.5, abs=0.05)
