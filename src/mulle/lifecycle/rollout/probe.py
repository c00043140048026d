"""Stage 7, before anybody is answered: a bundle is opened, proves itself on its own sample, and is timed."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mulle.core.errors import MulleError
from mulle.kernel.bundle import Predictor
from mulle.kernel.sample import read_sample

__all__ = ["Probe", "probe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a bundle did with its sample.

    Attributes
    ----------
    rows : int
        Answered, each by itself.
    p50, p99 : float or None
        Seconds for one row, from the feature function to the answer.
    problem : str
        Why it may not serve; empty when it may.
    """

    rows: int = 0
    p50: float | None = None
    p99: float | None = None
    problem: str = ""


def probe(folder: Path, bundle: str) -> Probe:
    """Open a bundle as serving does, which checks its content and proves its transform, and let it answer its own sample.

    Parameters
    ----------
    folder : Path
    bundle : str
        The content hash that it was registered with.

    Returns
    -------
    Probe
        A sample of no rows, as older bundles have it, is no problem.
    """
    seconds: list[float] = []
    try:
        predictor = Predictor.open(folder, expected=bundle)
        try:
            file = folder / "sample.json"
            rows = read_sample(json.loads(file.read_bytes())).rows if file.is_file() else None
            for number in range(0 if rows is None else rows.height):
                assert rows is not None
                began = time.perf_counter()
                scores = predictor.score(predictor.transform(rows[number]))
                seconds.append(time.perf_counter() - began)
                shares = scores.probabilities
                if shares is not None and not np.isfinite(shares).all():
                    return Probe(rows=number + 1, problem="it answers with a probability that is no number")
                if shares is None and not np.isfinite(np.asarray(scores.values, dtype=np.float64)).all():
                    return Probe(rows=number + 1, problem="it answers with what is no number")
        finally:
            predictor.close()
    except MulleError as error:
        return Probe(rows=len(seconds), problem=error.detail)
    if not seconds:
        return Probe()
    p50, p99 = (round(float(np.quantile(seconds, q)), 6) for q in (0.5, 0.99))
    return Probe(rows=len(seconds), p50=p50, p99=p99)
