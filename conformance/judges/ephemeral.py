"""What the ephemeral data in transactions are about (AS: Pushing ephemeral data)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

from conformance.wire.exchange import Direction, Exchange

Item = dict[str, Any]

#: All the types there are (AS: PUT /transactions/{txnId}).
TYPES = ("m.presence", "m.typing", "m.receipt")

_ACTS = re.compile(r"/_matrix/client/[^/]+/rooms/([^/]+)/(typing|receipt/[^/]+)/([^/]+)")


def mentions(item: object, *texts: str) -> bool:
    """Whether each of these texts stands somewhere in an item, as a value or as a key: whatever form it has."""
    whole = json.dumps(item, ensure_ascii=False)
    return all(json.dumps(text, ensure_ascii=False) in whole for text in texts)


def typists(item: Item) -> list[Any] | None:
    """Who types, by the client format of `m.typing`; None when it has another one."""
    content = item.get("content")
    users = content.get("user_ids") if isinstance(content, dict) else None
    return users if isinstance(users, list) else None


def receipt(item: Item, event_id: str, kind: str, user_id: str) -> Item | None:
    """Somebody's receipt, by the client format of `m.receipt`; None when there is none."""
    found: Any = item
    for key in ("content", event_id, kind, user_id):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else None


def subjects(item: Item) -> list[str]:
    """What an item that belongs to a room is about: those who type, or the events that were read."""
    if item.get("type") == "m.typing":
        return [user for user in typists(item) or () if isinstance(user, str)]
    if item.get("type") == "m.receipt" and isinstance(item.get("content"), dict):
        return list(item["content"])
    return []


def unaged(items: Iterable[Item]) -> list[Item]:
    """Items without what is told anew each time: how long ago somebody was active (CS: m.presence)."""
    return [
        {**item, "content": {key: value for key, value in item["content"].items() if key != "last_active_ago"}}
        if isinstance(item.get("content"), dict)
        else item
        for item in items
    ]


def acts(exchanges: Iterable[Exchange]) -> dict[str, set[str]]:
    """In which rooms the users of a run typed, by user, and in which room what they read is, by event."""
    rooms: dict[str, set[str]] = {}
    for exchange in exchanges:
        found = _ACTS.search(exchange.raw_path) if exchange.direction is Direction.TO_HOMESERVER else None
        if found:
            rooms.setdefault(unquote(found[3]), set()).add(unquote(found[1]))
    return rooms
