"""Requests on the legacy routes, and those on the present ones that they repeat (AS: Legacy routes)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from urllib.parse import unquote

from conformance.appservice.routes import Kind, Route
from conformance.judges import credentials, sameness
from conformance.judges.transactions import acknowledged, elements
from conformance.wire.exchange import Exchange

Routing = Callable[[Exchange], Route]

_WITH_FIELDS = (Kind.THIRDPARTY_USERS, Kind.THIRDPARTY_LOCATIONS, Kind.REVERSE_USER, Kind.REVERSE_LOCATION)


def fields(exchange: Exchange) -> list[tuple[str, str]]:
    """The parameters of a request in any order; a token of before v1.4 is none."""
    return sorted(pair for pair in exchange.query if pair[0] != credentials.PARAMETER)


def repeated(exchange: Exchange, earlier: Iterable[Exchange], route: Routing) -> list[Exchange]:
    """The requests on present routes that one on a legacy route may repeat, in order.

    Generous, so that one that repeats badly is not taken for one that repeats nothing: an ID may be encoded otherwise,
    a transaction have another ID, fields be lost or renamed.
    """
    return [each for each in earlier if _same_matter(exchange, each, route)]


def _same_matter(legacy: Exchange, current: Exchange, route: Routing) -> bool:
    one, other = route(legacy), route(current)
    if other.legacy or one.kind is not other.kind or current.started > legacy.started:
        return False
    if one.kind is Kind.TRANSACTION and _ids(legacy) & _ids(current):
        return True
    if one.kind in _WITH_FIELDS and not _values(legacy) <= _values(current):
        return False
    return _plain(one.subject) == _plain(other.subject)


def _ids(exchange: Exchange) -> set[str]:
    return {str(event.get("event_id")) for event in elements(exchange) if isinstance(event, dict)}


def _values(exchange: Exchange) -> set[str]:
    return {_plain(value) for _, value in fields(exchange)}


def _plain(text: str) -> str:
    while (decoded := unquote(text)) != text:
        text = decoded
    return text


def too_early(requests: Sequence[Exchange], route: Routing) -> Exchange | None:
    """A request of one appservice on a legacy route while the present one had not been answered.

    Where a legacy route has worked, a homeserver may remember that for a while.
    """
    for place, exchange in enumerate(requests):
        if not route(exchange).legacy:
            continue
        tried = repeated(exchange, requests[:place], route)
        # One that was never answered has been tried too: when its homeserver gave it up is not known exactly.
        if not any(each.answer_from is None or each.answer_from <= exchange.started for each in tried):
            return exchange
        if acknowledged(exchange):
            return None
    return None


def uncalled_for(requests: Sequence[Exchange], route: Routing) -> Exchange | None:
    """A request of one appservice on a legacy route that repeats nothing, or what had succeeded."""
    for place, exchange in enumerate(requests):
        if route(exchange).legacy:
            tried = repeated(exchange, requests[:place], route)
            if not any(not acknowledged(each) for each in tried):
                return exchange
    return None


def difference(legacy: Exchange, current: Exchange, route: Routing) -> str | None:
    """How a request on a legacy route differs from the one that it repeats; None when it does not.

    The search fields of look-ups are the subject of requirements of their own.
    """
    one, other = route(legacy), route(current)
    if legacy.method != current.method:
        return f"{legacy.method} in place of {current.method}"
    if one.subject != other.subject:
        return f"{one.subject!r} in place of {other.subject!r}"
    if one.kind not in _WITH_FIELDS and fields(legacy) != fields(current):
        return f"the query {dict(fields(legacy))} in place of {dict(fields(current))}"
    # Who knows the legacy routes only looks for the token in the query: it may be there as well (AUTH-01, AUTH-08).
    if legacy.request_header("Authorization") != current.request_header("Authorization"):
        return "other credentials"
    if not _tokens(current) <= _tokens(legacy):
        return "other credentials"
    if one.kind is Kind.TRANSACTION:
        return sameness.difference(elements(current), elements(legacy))
    return None


def _tokens(exchange: Exchange) -> set[str]:
    return {credentials.as_form(each) for each in credentials.query_tokens(exchange)}
