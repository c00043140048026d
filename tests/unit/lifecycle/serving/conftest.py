"""Shares the hand-made bundle and server with the tests of the inference plane."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "surfaces" / "inference"))
