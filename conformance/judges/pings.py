"""Which pings were asked for (AS: Pinging)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from urllib.parse import unquote

from conformance.wire.exchange import Exchange

#: Pings that a homeserver may send for each call.
ATTEMPTS = 3

_CALL = re.compile(r"/_matrix/client/[^/]+/(?:[^/]+/)?appservice/([^/]+)/ping")


def asked(calls: Iterable[Exchange], appservice_id: str) -> list[Exchange]:
    """Those calls to a homeserver that ask for a ping of an appservice, whoever makes them."""
    found = ((call, _CALL.fullmatch(call.raw_path)) for call in calls)
    return [call for call, path in found if path and unquote(path[1]) == appservice_id]


def unasked(pings: Iterable[Exchange], calls: Sequence[Exchange], late: float) -> Exchange | None:
    """The first ping that no call can have caused: each causes :data:`ATTEMPTS`, from when it is made; None: no such.

    :param late: seconds after its answer in which a call may still cause a ping.
    """
    left = [ATTEMPTS] * len(calls)
    ends = [math.inf if call.answer_until is None else call.answer_until + late for call in calls]
    for ping in sorted(pings, key=lambda each: each.started):
        causes = [
            place for place, call in enumerate(calls) if left[place] and call.started <= ping.started <= ends[place]
        ]
        if not causes:
            return ping
        left[min(causes, key=ends.__getitem__)] -= 1
    return None
