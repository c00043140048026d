"""What trials can do to their process, asked for by a parameter; imported by the workers of the tests."""

from __future__ import annotations

import ctypes
import os
import signal
import time

import numpy as np

from mulle.lifecycle.training import trial

_fit = trial.fit

WAIT = 0.0
"""Seconds that each fit takes longer."""


def fit(settings, *arguments, **options):
    time.sleep(WAIT)
    match settings["params"].pop("disaster", None):
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hang":
            # The interpreter's lock is kept: nothing inside the process can end this.
            ctypes.PyDLL(None).sleep(600)
        case "overrun":
            while True:
                pass
        case "greed":
            held = [np.ones(10_000_000) for _ in range(100)]
            raise AssertionError(len(held))
        case "one large array":
            np.ones(10**12)
        case "raise":
            raise ValueError("no")
    return _fit(settings, *arguments, **options)


trial.fit = fit
