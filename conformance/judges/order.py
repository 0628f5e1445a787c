"""Whether events arrive in the order in which they were sent (AS: Pushing events: "linearised")."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def arrivals(events: Iterable[Mapping[str, Any]]) -> list[str]:
    """The IDs of pushed events in order of first arrival."""
    return list(dict.fromkeys(str(event.get("event_id")) for event in events))


def first_inversion(sent: Sequence[str], arrived: Sequence[str]) -> tuple[str, str] | None:
    """Two events of which the first was sent before the second and arrived after it; None when there are none.

    What has not arrived, or was not sent, does not count.
    """
    place = {event_id: number for number, event_id in enumerate(sent)}
    seen = [each for each in arrived if each in place]
    for before, after in itertools.pairwise(seen):
        if place[before] > place[after]:
            return after, before
    return None


def in_words(sent: Sequence[str], arrived: Sequence[str], inversion: tuple[str, str]) -> str:
    """An inversion for a message: which of the sent events arrived after which."""
    place = {event_id: number for number, event_id in enumerate(sent, 1)}
    earlier, later = inversion
    return f"number {place[earlier]} of {len(sent)} arrived after number {place[later]}"
