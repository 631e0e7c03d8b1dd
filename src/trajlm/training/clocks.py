"""Cadences as objects: `should_log(step)` instead of arithmetic in ifs."""

from __future__ import annotations

import time


class EverySteps:
    """True at each positive multiple of `steps`; never where `steps` is 0.

    A pure function of the step, so a resumed run keeps the beat of an uninterrupted one.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __call__(self, step: int) -> bool:
        return self.steps > 0 and step > 0 and step % self.steps == 0


class EverySeconds:
    """True when `seconds` have passed since it was last true (first since it was made)."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.due = time.monotonic() + seconds

    def __call__(self) -> bool:
        now = time.monotonic()
        if now < self.due:
            return False
        self.due = now + self.seconds
        return True


class Stopwatch:
    """Seconds of work: time that runs, less what was spent inside `pause()` blocks."""

    def __init__(self) -> None:
        self._origin = time.perf_counter()
        self._paused = 0.0

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._origin - self._paused

    def pause(self) -> _Pause:
        return _Pause(self)


class _Pause:
    def __init__(self, watch: Stopwatch) -> None:
        self._watch = watch

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._watch._paused += time.perf_counter() - self._start
