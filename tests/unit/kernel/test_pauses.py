"""The garbage collector keeps out of the way of answers, and still does its work."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from mulle.kernel.pauses import shorten_pauses


@pytest.fixture
def shortened() -> Iterator[None]:
    before = gc.get_threshold()
    shorten_pauses()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


class Knot:
    """An object that only a collection removes."""

    def __init__(self) -> None:
        self.itself = self


@pytest.mark.usefixtures("shortened")
def test_a_batchs_objects_cause_no_collection() -> None:
    gc.collect()
    seen: list[str] = []
    gc.callbacks.append(lambda phase, _: seen.append(phase))
    try:
        kept = [{"row": number} for number in range(5_000)]
    finally:
        gc.callbacks.pop()
    assert len(kept) == 5_000
    assert not seen


@pytest.mark.usefixtures("shortened")
def test_what_was_there_is_left_out_and_new_garbage_still_goes() -> None:
    assert len(gc.get_objects()) < 10_000 < gc.get_freeze_count()
    watched = weakref.ref(Knot())
    kept = []
    for _ in range(40_000):
        kept.append(Knot())
        if watched() is None:
            break
    assert watched() is None
