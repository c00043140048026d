"""What serving costs is measured in its units, and grows with what is served."""

from __future__ import annotations

import time

import polars as pl
import pytest
from making import make

from mulle.core.declare.candidates import lightgbm
from mulle.core.errors import BundleError
from mulle.lifecycle.registry.latency import measure_latency, measure_peak, measure_throughput


def test_latency_and_throughput_are_measured_on_few_rows_too(tmp_path):
    made = make(tmp_path)
    p50, p99 = measure_latency(made.predictor(), made.joined.head(1), n=20)
    assert 0 < p50 <= p99 < 1
    assert measure_throughput(made.predictor(), made.joined.head(7)) > 1 / p50, "a batch is quicker than row by row"


class Interrupted:
    """A predictor on a machine that does something else during some answers, or that is slow by itself."""

    def __init__(self, every: int) -> None:
        self.every, self.asked = every, 0

    def transform(self, row):
        return row

    def score(self, row):
        self.asked += 1
        end = time.perf_counter() + (0.005 if self.asked % self.every == 0 else 0)
        while time.perf_counter() < end:
            pass


def test_what_a_busy_machine_adds_to_an_answer_is_left_out_and_what_the_model_takes_is_not():
    row = pl.DataFrame({"x": [1.0]})
    strict, busy = (0.004, 0.004), Interrupted(7)
    assert measure_latency(busy, row, n=40)[1] > 0.004
    assert measure_latency(busy, row, n=40, bounds=strict)[1] < 0.004
    slow = Interrupted(1)
    assert measure_latency(slow, row, n=20, bounds=strict)[1] >= 0.005
    assert slow.asked <= 10 * 20, "a few times, not for ever"


def test_memory_is_that_of_a_process_of_its_own(tmp_path):
    made = make(tmp_path, lightgbm(n_estimators=30))
    _, address = made.write()
    ballast = bytearray(300_000_000)
    ballast[::4096] = b"x" * len(ballast[::4096])
    found = measure_peak(address, made.joined)
    assert 30e6 < found < 300e6, "what this process holds is not counted"
    del ballast


def test_a_bundle_that_does_not_load_says_so(tmp_path):
    made = make(tmp_path)
    _, address = made.write()
    (address / "model.onnx").write_bytes(b"no model")
    with pytest.raises(BundleError, match="memory was not measured"):
        measure_peak(address, made.joined)
