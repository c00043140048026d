"""Sources: mistakes that are refused where they are made."""

from __future__ import annotations

import pytest

import mulle as ml
from mulle.core.errors import DeclarationError


@pytest.mark.parametrize("limit", [0, -1])
def test_a_topic_is_read_in_batches_of_one_message_or_more(limit: int) -> None:
    with pytest.raises(DeclarationError, match=f"limit is {limit}"):
        ml.Kafka(topic="t", limit=limit)
    assert ml.Kafka(topic="t", limit=1).limit == 1


@pytest.mark.parametrize("topic", ["", " "])
def test_a_topic_has_a_name(topic: str) -> None:
    with pytest.raises(DeclarationError, match="no name"):
        ml.Kafka(topic=topic)
