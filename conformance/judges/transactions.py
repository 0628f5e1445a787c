"""The form and the identity of transactions (AS: Pushing events)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote

from conformance.appservice.routes import Kind, Route
from conformance.judges import events as event_judges
from conformance.wire.exchange import Exchange, NotJson, Phase

_V1_TARGET = re.compile(r"/_matrix/app/v1/transactions/.+")
#: A path segment of RFC 3986: percent-encoded but for what may stand there as it is.
_SEGMENT = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})+")


def body_of(exchange: Exchange) -> dict[str, Any]:
    """The body of a request; empty when it is no JSON object."""
    try:
        body = exchange.request_json
    except NotJson:
        return {}
    return body if isinstance(body, dict) else {}


def elements(exchange: Exchange) -> list[Any]:
    """What stands in `events`, objects or not; nothing when it is no list."""
    events = body_of(exchange).get("events")
    return events if isinstance(events, list) else []


def is_transaction(exchange: Exchange, route: Route) -> bool:
    """Whether a request is one, by its path, or by its body when the path is none that an appservice knows."""
    if exchange.received is None:
        return False
    return route.kind is Kind.TRANSACTION or (route.kind is Kind.UNKNOWN and "events" in body_of(exchange))


def request_line_problem(exchange: Exchange, route: Route) -> str | None:
    """Why method and path are not those of a transaction; None when they are.

    What stands before ``/_matrix`` is the subject of REG-03 and REG-04, the legacy path that of LEGACY.
    """
    if exchange.method != "PUT":
        return f"the method {exchange.method}"
    if route.kind is not Kind.TRANSACTION and not _V1_TARGET.search(exchange.raw_path):
        return f"the path {exchange.raw_path}"
    return None


def segment_problem(exchange: Exchange) -> str | None:
    """Why the id is not sent as one percent-encoded segment without a query; None when it is."""
    segment = exchange.raw_path.partition("/transactions/")[2]
    if not _SEGMENT.fullmatch(segment):
        return f"the id as {segment!r}"
    strange = [key for key, _ in exchange.query if key != "access_token"]
    if strange:
        return f"the query parameter {strange[0]!r}"
    return None


def media_type_problem(exchange: Exchange) -> str | None:
    """Why the body is not declared as JSON; None when it is. Parameters of the media type are free."""
    declared = exchange.request_header("Content-Type")
    if not declared:
        return "no Content-Type"
    if any(value.partition(";")[0].strip().lower() != "application/json" for value in declared):
        return f"the Content-Type {', '.join(declared)}"
    return None


def body_problem(exchange: Exchange) -> str | None:
    """Why the body is no JSON object in UTF-8; None when it is one."""
    try:
        body = exchange.request_json
    except NotJson as error:
        return f"a body that is not UTF-8 JSON ({error})"
    return None if isinstance(body, dict) else f"a body that is a JSON {type(body).__name__}"


def acknowledged(exchange: Exchange) -> bool:
    """Whether the appservice answered a request with a complete 2xx."""
    return (
        exchange.phase is Phase.DONE
        and exchange.failure is None
        and exchange.status is not None
        and 200 <= exchange.status < 300
    )


def transaction_id(exchange: Exchange) -> str:
    """The id of a transaction, decoded."""
    return unquote(exchange.raw_path.partition("/transactions/")[2])


def same_events(one: Exchange, other: Exchange) -> bool:
    """Whether two transactions hold the same events in the same order, but for their age."""
    first, second = ([event_judges.without_age(event) for event in elements(each)] for each in (one, other))
    return event_judges.same(first, second)


def event_ids(exchange: Exchange) -> list[str]:
    """The IDs of the events of a transaction, in order."""
    return [str(event.get("event_id")) for event in elements(exchange) if isinstance(event, dict)]


def carries(exchange: Exchange, event_id: str) -> bool:
    """Whether a request brings an event, rather than only names it (as a replaced or previous event of another).

    Where the events cannot be read, or have no IDs, it is enough that the ID stands somewhere in the body.
    """
    ids = {str(event["event_id"]) for event in elements(exchange) if isinstance(event, dict) and "event_id" in event}
    return event_id in ids if ids else event_id.encode() in exchange.request_body


def same_ids(one: Exchange, other: Exchange) -> bool:
    """Whether two transactions hold events of the same IDs, however these are told."""
    return event_ids(one) == event_ids(other)


def reused_id(
    transactions: Iterable[Exchange], same: Callable[[Exchange, Exchange], bool] = same_events
) -> tuple[Exchange, Exchange] | None:
    """A transaction of one appservice that was acknowledged, and a later one with its id and other events."""
    done: dict[str, Exchange] = {}
    for exchange in transactions:
        txn_id = transaction_id(exchange)
        earlier = done.get(txn_id)
        if earlier is not None and _answered_before(earlier, exchange) and not same(earlier, exchange):
            return earlier, exchange
        if acknowledged(exchange):
            done.setdefault(txn_id, exchange)
    return None


def _answered_before(earlier: Exchange, later: Exchange) -> bool:
    return earlier.answer_from is not None and earlier.answer_from <= later.started


def repeated(transactions: Iterable[Exchange]) -> tuple[Exchange, Exchange] | None:
    """A transaction of one appservice that was acknowledged on the present route, and a later one with its id."""
    done: dict[str, Exchange] = {}
    for exchange in transactions:
        earlier = done.get(transaction_id(exchange))
        if earlier is not None and _answered_before(earlier, exchange):
            return earlier, exchange
        if acknowledged(exchange):
            done.setdefault(transaction_id(exchange), exchange)
    return None


def delivered_twice(transactions: Iterable[Exchange]) -> tuple[str, Exchange, Exchange] | None:
    """An event that one appservice got twice, in transactions with different ids or twice in one."""
    first: dict[str, Exchange] = {}
    for exchange in transactions:
        here = [event.get("event_id") for event in elements(exchange) if isinstance(event, dict)]
        for place, event_id in enumerate(here):
            if not isinstance(event_id, str):
                continue
            earlier = first.setdefault(event_id, exchange)
            if transaction_id(earlier) != transaction_id(exchange) or event_id in here[:place]:
                return event_id, earlier, exchange
    return None
