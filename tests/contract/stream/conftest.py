"""Shares the topics, and the hand-made bundle, with the tests of streams."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "unit" / "surfaces" / "inference")]
