"""Labels are read strictly, told once, and keyed in the dataset's own order."""

from __future__ import annotations

import pytest

from mulle.core.clock import instant
from mulle.core.errors import ContractError, Malformed, MulleError, TooLarge
from mulle.core.hashing import new_id
from mulle.lifecycle.serving.labels import Receipt, Remembered, read_labels

NOW = instant("2013-03-02")
ID = new_id(NOW)


def read(body: object, remembered: Remembered | None = None) -> Receipt:
    return read_labels(
        body, now=NOW, known=lambda m: m == "trip", columns=lambda m: ("id", "day") if m == "trip" else (),
        remembered=remembered or Remembered(), most=5,
    )  # fmt: skip


def test_a_label_by_prediction_id() -> None:
    label = read({"labels": [{"prediction_id": ID, "value": 231, "known_at": "2013-03-01T14:02:00Z"}]}).labels[0]
    assert (label.prediction_id, label.value, label.known_at) == (ID, 231, instant("2013-03-01T14:02"))


def test_a_label_by_key_takes_the_datasets_order_of_columns() -> None:
    label = read({"model": "trip", "labels": [{"key": {"day": 2, "id": 1}, "time": "2013-03-01", "value": True}]}).labels[0]
    assert list(label.key) == ["id", "day"]
    assert (label.value, label.known_at) == ("true", NOW)


def test_a_label_that_will_never_come_has_its_reason() -> None:
    label = read({"labels": [{"prediction_id": ID, "value": None, "reason": "cancelled"}]}).labels[0]
    assert (label.value, label.reason) == (None, "cancelled")


def test_a_repeated_label_counts_as_a_duplicate_and_a_corrected_one_does_not() -> None:
    remembered = Remembered()
    body = {"labels": [{"prediction_id": ID, "value": 1}, {"prediction_id": ID, "value": 1}]}
    first = read(body, remembered)
    assert (len(first.labels), first.duplicates) == (1, 1)
    remembered.add(first.labels)
    again = read({"labels": [{"prediction_id": ID, "value": 1}, {"prediction_id": ID, "value": 2}]}, remembered)
    assert ([label.value for label in again.labels], again.duplicates) == ([2], 1)


def test_what_belongs_to_nothing_is_named() -> None:
    body = {"labels": [{"prediction_id": "nonsense", "value": 1}, {"model": "ghost", "key": {"id": 1}, "value": 1}]}
    receipt = read(body)
    assert [u["index"] for u in receipt.unknown] == [0, 1]
    assert not receipt.labels


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ([], Malformed),
        ({}, Malformed),
        ({"labels": []}, Malformed),
        ({"labels": [{"prediction_id": ID, "value": 1}] * 6}, TooLarge),
        ({"labels": [3]}, ContractError),
        ({"labels": [{"prediction_id": ID}]}, ContractError),
        ({"labels": [{"value": 1}]}, ContractError),
        ({"labels": [{"prediction_id": ID, "key": {"id": 1}, "value": 1}]}, ContractError),
        ({"labels": [{"prediction_id": 7, "value": 1}]}, ContractError),
        ({"labels": [{"prediction_id": ID, "value": [1]}]}, ContractError),
        ({"labels": [{"prediction_id": ID, "value": 1, "known_at": "soon"}]}, ContractError),
        ({"labels": [{"prediction_id": ID, "value": 1, "valeu": 2}]}, ContractError),
        ({"labels": [{"key": {"id": 1, "day": 1}, "value": 1}]}, ContractError),
        ({"model": "trip", "labels": [{"key": {"id": 1}, "value": 1}]}, ContractError),
        ({"model": "trip", "labels": [{"key": {"id": None, "day": 1}, "value": 1}]}, ContractError),
    ],
)
def test_what_cannot_be_understood_is_refused_with_its_place(body: object, kind: type[MulleError]) -> None:
    with pytest.raises(kind) as caught:
        read(body)
    assert type(caught.value) is kind
    if kind is ContractError:
        assert caught.value.facts["row"] == 0
