"""What the figures were taken on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil

__all__ = ["machine"]


def machine() -> dict[str, str]:
    """Describe the machine: processor, cores, memory, system, Python, and how busy it was before."""
    load = os.getloadavg()[0]
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "system": platform.system(),
        "python": platform.python_version(),
        "load before": f"{load:.2f}",
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
