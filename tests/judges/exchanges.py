"""Exchanges for the judges to look at."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

from conformance.wire.exchange import Direction, Exchange, Headers, Phase

_numbers = count(1)


def request(
    target: str = "/_matrix/app/v1/transactions/1",
    body: Any = None,
    *,
    method: str = "PUT",
    headers: Headers = (),
    status: int | None = 200,
    started: float | None = None,
) -> Exchange:
    """A request to an appservice, answered a tenth of a second after it came."""
    number = next(_numbers)
    started = float(number) if started is None else started
    return Exchange(
        number=number,
        direction=Direction.TO_APPSERVICE,
        party="A",
        method=method,
        target=target,
        request_headers=headers,
        started=started,
        received=started,
        request_body=body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode(),
        phase=Phase.PENDING if status is None else Phase.DONE,
        status=status,
        answer_from=None if status is None else started + 0.1,
        answer_until=None if status is None else started + 0.1,
    )


def transaction(txn_id: str, *events: Any, **fields: Any) -> Exchange:
    """A transaction with an id and events."""
    return request(f"/_matrix/app/v1/transactions/{txn_id}", {"events": list(events)}, **fields)


def event(event_id: str, **fields: Any) -> dict[str, Any]:
    """A message as it is pushed."""
    return {
        "event_id": event_id,
        "type": "m.room.message",
        "sender": "@h:hq.test",
        "room_id": "!r",
        "origin_server_ts": 1,
        "content": {"body": "x"},
        **fields,
    }


def answer(status: int, body: bytes, path: str = "/_matrix/client/v3/x", method: str = "GET") -> Exchange:
    """An answer of the homeserver."""
    return Exchange(
        number=next(_numbers),
        direction=Direction.TO_HOMESERVER,
        party="H",
        method=method,
        target=path,
        request_headers=(),
        started=0.0,
        phase=Phase.DONE,
        status=status,
        response_body=body,
    )
