"""Marker events: the positive control of everything that is said not to have happened.

A marker is an event of interest sent after the stimulus. Once it has arrived, what the stimulus would have caused has
had its time, but for the quiet window.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from conformance.appservice.fleet import Appservice
from conformance.homeserver.users import User
from conformance.verdict import Inconclusive

if TYPE_CHECKING:
    from conformance.run import Run

#: Rooms that are made at most until one has an ID that a `rooms` namespace matches (about every second does).
_ROOMS_TRIED = 40


class Markers:
    """A room of interest for each appservice, made when first needed, in which markers are sent."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._rooms: dict[str, str] = {}

    def pass_by(self, *codes: str) -> None:
        """Send a marker to each of these appservices and wait until it is there.

        :raises Inconclusive: it did not arrive: nothing can be said about what did not either.
        """
        human = self._run.humans[0]
        sent = []
        for code in codes:
            appservice = self._run.appservice(code)
            if code not in self._rooms:
                self._rooms[code] = self._room(appservice, human)
            sent.append((appservice, human.send(self._rooms[code])))
        for appservice, event in sent:
            appservice.await_event(event)

    def _room(self, appservice: Appservice, human: User) -> str:
        if not appservice.registration.users:
            return matching_room(appservice, human)
        room = human.create_room()
        appservice.ghost().join(room)
        human.send(room)  # a homeserver that loses the first message after a join fails INTEREST-30 only
        return room


def matching_room(appservice: Appservice, human: User, matching: bool = True) -> str:
    """A new room whose ID the appservice's `rooms` namespace matches (or, with `matching` false, does not).

    :raises Inconclusive: many rooms were made and none was so.
    """
    regexes = [entry.regex for entry in appservice.registration.rooms or ()]
    for _ in range(_ROOMS_TRIED):
        room = human.create_room()
        if any(re.match(regex, room) for regex in regexes) is matching:
            return room
    wanted = "matches" if matching else "does not match"
    raise Inconclusive(f"of {_ROOMS_TRIED} new rooms none has an ID that {wanted} {' or '.join(regexes)}")
