"""The form of single events, and whether two values are the same (AS: Pushing events, CS: ClientEvent)."""

from __future__ import annotations

import json
from typing import Any

#: What a federation event has at its top level and a client event has not.
FEDERATION_KEYS = ("auth_events", "prev_events", "depth", "hashes", "signatures")

_SIGILS = {"event_id": "$", "sender": "@", "room_id": "!"}


def is_integer(value: object) -> bool:
    """Whether a JSON value is a whole number; true and false are none."""
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())


def form_problem(event: object) -> str | None:
    """Why an element of `events` is no client event; None when it is one. Keys beyond the required ones are free."""
    if not isinstance(event, dict):
        return f"an element that is no object: {_shown(event)}"
    missing = [
        key for key in ("event_id", "type", "sender", "origin_server_ts", "content", "room_id") if key not in event
    ]
    if missing:
        return f"an event without {' and '.join(missing)}"
    for key, sigil in _SIGILS.items():
        if not isinstance(event[key], str) or not event[key].startswith(sigil):
            return f"{key} {_shown(event[key])}"
    if not isinstance(event["type"], str):
        return f"type {_shown(event['type'])}"
    if not is_integer(event["origin_server_ts"]):
        return f"origin_server_ts {_shown(event['origin_server_ts'])}"
    if not isinstance(event["content"], dict):
        return f"content that is no object: {_shown(event['content'])}"
    return None


def unsigned_problem(event: dict[str, Any]) -> str | None:
    """What is wrong with the form of an event's `unsigned`; None when it is absent or right."""
    if "unsigned" not in event:
        return None
    unsigned = event["unsigned"]
    if not isinstance(unsigned, dict):
        return f"unsigned {_shown(unsigned)}"
    if "age" in unsigned and not is_integer(unsigned["age"]):
        return f"unsigned.age {_shown(unsigned['age'])}"
    return None


def stripped_problem(state: object) -> str | None:
    """What is wrong with stripped state (CS: Stripped state); None when it is absent or right."""
    if state is None:
        return None
    if not isinstance(state, list):
        return f"{_shown(state)}, no list"
    for event in state:
        if not isinstance(event, dict):
            return f"{_shown(event)}, no event"
        texts = [key for key in ("type", "state_key", "sender") if not isinstance(event.get(key), str)]
        if texts or not isinstance(event.get("content"), dict):
            return f"no {texts[0] if texts else 'content'} in {_shown(event)}"
    return None


def unsigned_of(event: dict[str, Any]) -> dict[str, Any]:
    """The `unsigned` of an event; empty when it has none of the right form."""
    unsigned = event.get("unsigned")
    return unsigned if isinstance(unsigned, dict) else {}


def same(one: object, other: object) -> bool:
    """Whether two JSON values are equal: by value, so that 1 is 1.0, but true is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) is isinstance(other, bool) and one == other


def without_age(event: object) -> object:
    """An event without what may differ from one attempt to the next: `unsigned.age`, and the drafts' `age`."""
    if not isinstance(event, dict):
        return event
    kept = {key: value for key, value in event.items() if key != "age"}
    if isinstance(kept.get("unsigned"), dict):
        kept["unsigned"] = {key: value for key, value in kept["unsigned"].items() if key != "age"}
    return kept


def differing_keys(one: dict[str, Any], other: dict[str, Any], keys: tuple[str, ...]) -> list[str]:
    """Those of `keys` whose values differ between two events; absent and null are different."""
    absent = object()
    return [key for key in keys if not same(one.get(key, absent), other.get(key, absent))]


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"
