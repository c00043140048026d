"""What two stores sold: the rows of the stories about fleets."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl


def sold(store: str, slope: float, first: datetime, days: int) -> pl.DataFrame:
    """Two rows a day of a store, whose units follow the price."""
    dice = np.random.default_rng(len(store) + days)
    price = dice.normal(10, 2, 2 * days)
    return pl.DataFrame({
        "id": [f"{store}-{first.date()}-{n}" for n in range(2 * days)], "store": [store] * (2 * days), "price": price,
        "day": [first + timedelta(hours=12 * n) for n in range(2 * days)], "units": slope * price + dice.normal(size=2 * days),
    }, schema_overrides={"day": pl.Datetime("us", "UTC")})  # fmt: skip
