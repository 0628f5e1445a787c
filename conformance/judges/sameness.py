"""Whether the attempts of one transaction hold the same events (AS: Pushing events: "MUST NOT alter")."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from conformance.judges import events as event_judges
from conformance.judges.attempts import Attempt
from conformance.judges.transactions import elements, transaction_id
from conformance.wire.exchange import Exchange

#: Parts of an event that the specification lets a homeserver tell anew, below `unsigned`.
_RETOLD = frozenset({"redacted_because"})

#: The keys of an event whose change is named when there is one.
_SHOWN = ("type", "sender", "state_key", "content", "origin_server_ts", "room_id")


def events_of(attempt: Attempt) -> list[Any]:
    """The events of an attempt, as they were sent first."""
    return elements(attempt.first)


def ids_of(attempt: Attempt) -> list[str]:
    """The event IDs of an attempt, in order."""
    return [str(event.get("event_id")) for event in events_of(attempt) if isinstance(event, dict)]


def alteration(attempts: Sequence[Attempt]) -> tuple[str, Exchange, Exchange] | None:
    """How attempts with one ID differ from the first of them, and the two requests; None when they do not.

    Ages may change and redactions be told; everything else has to stay, in its order.
    """
    first: dict[str, Exchange] = {}
    for exchange in (exchange for attempt in attempts for exchange in attempt.exchanges):
        before = first.setdefault(transaction_id(exchange), exchange)
        told = difference(elements(before), elements(exchange))
        if told is not None:
            return told, before, exchange
    return None


def difference(before: Sequence[Any], after: Sequence[Any]) -> str | None:
    """How a list of events was altered, in words: events added, dropped, reordered, or changed."""
    old, new = [_id(event) for event in before], [_id(event) for event in after]
    added = [each for each in new if each not in old]
    dropped = [each for each in old if each not in new]
    if added or dropped:
        parts = [f"{len(added)} events added ({', '.join(added[:3])})"] if added else []
        parts += [f"{len(dropped)} events dropped ({', '.join(dropped[:3])})"] if dropped else []
        return " and ".join(parts)
    if old != new:
        return f"its events in another order: {', '.join(new[:5])} after {', '.join(old[:5])}"
    for one, other in zip(before, after, strict=True):
        changed = _change(one, other)
        if changed is not None:
            return changed
    return None


def _change(one: Any, other: Any) -> str | None:
    first, second = _fixed(one), _fixed(other)
    if event_judges.same(first, second):
        return None
    if not isinstance(first, dict) or not isinstance(second, dict):
        return "an element that is no event changed"
    if first.get("content") and not second.get("content"):
        return f"{_id(one)} without its content: redacted"
    keys = [key for key in {**first, **second} if not event_judges.same(first.get(key), second.get(key))]
    shown = [key for key in _SHOWN if key in keys] or sorted(keys)
    key = shown[0]
    return f"{_id(one)} with another {key}: {_short(second.get(key))} instead of {_short(first.get(key))}"


def _fixed(event: Any) -> Any:
    """What must not change in an event: all but its age, and that it has been redacted meanwhile."""
    event = event_judges.without_age(event)
    if isinstance(event, dict) and isinstance(event.get("unsigned"), dict):
        unsigned = {key: value for key, value in event["unsigned"].items() if key not in _RETOLD}
        return {**event, "unsigned": unsigned}
    return event


def _id(event: Any) -> str:
    return str(event.get("event_id")) if isinstance(event, dict) else "no event"


def without_unsigned(events: Sequence[Any]) -> list[Any]:
    """Events without their `unsigned` and the copies of its keys that old formats have at top level."""
    return [_signed(event) if isinstance(event, dict) else event for event in events]


def _signed(event: dict[str, Any]) -> dict[str, Any]:
    copies = {"unsigned", "age", "prev_content", "prev_sender", "replaces_state", "redacted_because"}
    return {key: value for key, value in event.items() if key not in copies}


def tells_redaction(exchange: Exchange) -> bool:
    """Whether any event of a request says that it has been redacted."""
    return any("redacted_because" in event_judges.unsigned_of(event) for event in elements(exchange) if event)


def _short(value: Any, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def added(attempts: Sequence[Attempt], late: Collection[str]) -> tuple[str, Exchange] | None:
    """An event of a later time that joined a transaction which had been tried without it, and the request."""
    first: dict[str, list[str]] = {}
    for attempt in attempts:
        ids = ids_of(attempt)
        before = first.setdefault(attempt.txn_id, ids)
        intruders = [each for each in ids if each in late and each not in before]
        if intruders:
            return intruders[0], attempt.first
    return None
