"""How late threads of this machine wake up: by so much a homeserver's timers and its requests may be late as well.

Arrivals carry the kernel's stamps, so that the suite itself adds nothing; but a homeserver on the same busy machine is
held up as we are.
"""

from __future__ import annotations

import bisect
import threading
import time

#: Seconds between two looks, and the lateness that is worth keeping.
_PERIOD, _LEAST = 0.02, 0.002


class Lateness:
    """Measures all the time while it runs."""

    def __init__(self) -> None:
        self._moments: list[float] = []
        self._late: list[float] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._measure, name="lateness", daemon=True)

    def start(self) -> None:
        """Begin to measure."""
        self._thread.start()

    def stop(self) -> None:
        """Stop measuring; what was measured stays."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _measure(self) -> None:
        due = time.monotonic() + _PERIOD
        while not self._over.wait(max(0.0, due - time.monotonic())):
            now = time.monotonic()
            if now - due > _LEAST:
                with self._lock:
                    self._moments.append(now)
                    self._late.append(now - due)
            due = now + _PERIOD

    def worst(self, since: float, until: float) -> float:
        """The greatest lateness, in seconds, of wake-ups between two moments of the monotonic clock; 0 for none."""
        with self._lock:
            first, last = bisect.bisect_left(self._moments, since), bisect.bisect_right(self._moments, until)
            return max(self._late[first:last], default=0.0)
