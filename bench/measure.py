"""How things are measured here: in rounds that take turns, and by the median: machines have their moods."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the report. ``met`` is None where nothing was promised."""

    name: str
    value: str
    target: str = ""
    met: bool | None = None
    note: str = ""
    command: str = ""


@contextmanager
def stopwatch() -> Iterator[Callable[[], float]]:
    """``with stopwatch() as seconds: …; seconds()`` is the wall time of the block."""
    started = time.perf_counter()
    ended: list[float] = []
    yield lambda: (ended[0] if ended else time.perf_counter()) - started
    ended.append(time.perf_counter())


def seconds_of(action: Callable[[], object]) -> float:
    with stopwatch() as seconds:
        action()
    return seconds()


def take_turns(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Run every contender once per round, so that a slow spell of the machine hits all of them."""
    results: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            results[name].append(run())
    return results


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def spread(values: Sequence[float]) -> str:
    """``0.42 s (0.40–0.47)``: the median, and the best and worst round."""
    return f"{median(values):.2f} s ({min(values):.2f}–{max(values):.2f})"


def say(text: str) -> None:
    """Progress, for whoever waits."""
    print(f"bench: {text}", flush=True)
