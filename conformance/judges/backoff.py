"""How a homeserver's retries are spaced: growing, constant, too fast, given up (AS: Pushing events).

The text says "exponentially" and nothing of base, factor, cap or jitter, so that none of these is asserted: lenient is
growth by two between the first and the largest gap, without a gap a quarter shorter than the one before it; strict is a
factor between 1.5 and 3 at each step, up to the plateau of a cap.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

#: Gaps that are needed before anything can be said.
ENOUGH = 3

#: How much shorter than its predecessor a gap may be, and how much longer the largest must be than the first.
_SHRINK, _GROWTH = 0.75, 2.0

#: The factor of one step in the strict reading, and how close two gaps of a plateau are.
_FACTORS, _PLATEAU = (1.5, 3.0), 0.15

#: More attempts than these in so many seconds are a hot loop.
HOT_ATTEMPTS, HOT_SECONDS = 10, 10.0


@dataclass(frozen=True)
class Spacing:
    """The times of the attempts of one outage, in seconds from the first."""

    times: tuple[float, ...]
    #: How exactly these times are known, in seconds.
    error: float = 0.0

    @classmethod
    def of(cls, started: Sequence[float], error: float = 0.0) -> Spacing:
        """The spacing of attempts that began at these moments."""
        return cls(tuple(each - started[0] for each in started), error)

    @property
    def gaps(self) -> tuple[float, ...]:
        """The seconds between one attempt's start and the next one's."""
        return tuple(later - earlier for earlier, later in itertools.pairwise(self.times))

    @property
    def enough(self) -> bool:
        """Whether anything can be said about growth."""
        return len(self.gaps) >= ENOUGH

    def __str__(self) -> str:
        """What was measured, for verdicts: "attempts at 0, 2.0, 6.0 s: gaps double"."""
        shown = ["0", *(f"{each:.1f}" if each >= 1 else f"{each:.2f}" for each in self.times[1:12])]
        more = f" and {len(self.times) - 12} more" if len(self.times) > 12 else ""
        return f"attempts at {', '.join(shown)} s{more}{self._manner()}"

    def _manner(self) -> str:
        gaps = self.gaps
        if len(gaps) < 2:
            return ""
        steps = [later / max(earlier, 1e-9) for earlier, later in itertools.pairwise(gaps)]
        if all(abs(step - 1) <= _PLATEAU for step in steps):
            return ": the gaps are all the same"
        differences = [later - earlier for earlier, later in itertools.pairwise(gaps)]
        growing = steps[: self._steps_to_the_plateau()]
        if growing and all(1.8 <= step <= 2.2 for step in growing):
            return ": the gaps double" + ("" if len(growing) == len(steps) else ", then stay")
        if len(differences) > 1 and max(differences) - min(differences) <= 0.25 * max(differences) > 0:
            return ": the gaps grow by the same amount each time"
        return f": each gap is {min(steps):.1f} to {max(steps):.1f} times the one before"

    def _steps_to_the_plateau(self) -> int:
        """How many steps there are until two gaps are the same after at least one that grew."""
        steps = [later / max(earlier, 1e-9) for earlier, later in itertools.pairwise(self.gaps)]
        for place, step in enumerate(steps):
            if place and abs(step - 1) <= _PLATEAU:
                return place
        return len(steps)

    def lenient_problem(self) -> str | None:
        """Why this is no backoff; None when it may be one. Only when there are :attr:`enough` gaps."""
        gaps = self.gaps
        for earlier, later in itertools.pairwise(gaps):
            if later + 2 * self.error < _SHRINK * (earlier - 2 * self.error):
                return f"a gap of {later:.2f} s after one of {earlier:.2f} s"
        if max(gaps) + 2 * self.error < _GROWTH * (gaps[0] - 2 * self.error):
            return f"the largest gap, {max(gaps):.2f} s, is less than twice the first, {gaps[0]:.2f} s"
        return None

    def strict_problem(self) -> str | None:
        """Why this is no exponential backoff; None when it is, up to a plateau."""
        gaps = self.gaps
        low, high = _FACTORS
        for place in range(self._steps_to_the_plateau()):
            earlier, later = gaps[place], gaps[place + 1]
            least = (later - 2 * self.error) / (earlier + 2 * self.error)
            most = (later + 2 * self.error) / max(earlier - 2 * self.error, 1e-9)
            if most < low or least > high:
                return f"a gap of {later:.2f} s after one of {earlier:.2f} s: {later / max(earlier, 1e-9):.1f} times"
        return None

    def hot(self, scale: float = 1.0) -> int | None:
        """How many attempts the first ten seconds (scaled) have; None unless they are too many."""
        count = sum(each < HOT_SECONDS * scale for each in self.times)
        return count if count > HOT_ATTEMPTS else None

    def next_gap(self) -> float:
        """Seconds in which the next attempt should come at the latest: three times the last gap, and the error."""
        return 3 * self.gaps[-1] + 2 * self.error if self.gaps else 0.0
