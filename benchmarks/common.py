"""What measurements share: the machine they were made on, and timing in turns."""

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def machine(*packages: str) -> dict[str, Any]:
    """What the numbers depend on; neither host name nor paths.

    Args:
        packages: whose versions matter.
    """
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in packages},
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def rates_in_turns(
    calls: Mapping[str, Callable[[], object]],
    items: int,
    *,
    seconds: float,
    repeats: int,
    synchronize: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Items per second of wall time of each call, measured in turns so that what disturbs the machine hits all alike.

    Args:
        calls: what to measure, by name.
        items: handled by one call.
        seconds: length of one measurement; calls that take longer are made once.
        repeats: rounds.
        synchronize: waits for a device's work to end.

    Returns:
        One rate per round and name.
    """
    counts = {}
    for name, call in calls.items():
        start = time.perf_counter()
        call()  # first touch of memory, caches and compiled code
        synchronize()
        counts[name] = 1
        if time.perf_counter() - start < 10 * seconds:
            start = time.perf_counter()
            call()
            synchronize()
            counts[name] = max(1, round(seconds / (time.perf_counter() - start)))
    rates: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(counts[name]):
                call()
            synchronize()
            rates[name].append(counts[name] * items / (time.perf_counter() - start))
    return rates


def digits(value: float, number: int = 3) -> float:
    """A value to so many significant digits."""
    return float(f"{value:.{number}g}")


def print_records(title: str, columns: Sequence[str], records: Sequence[Mapping[str, Any]]) -> None:
    """Print some columns of records as a table."""
    table = Table(title=title)
    for column in columns:
        table.add_column(column.replace("_", " "))
    for record in records:
        table.add_row(*(str(record[column]) for column in columns))
    Console(width=120).print(table)
