"""Shares the hand-made bundle and server with the tests of batch jobs."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "surfaces" / "inference")]
