from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.appservice.routes import Route, route_of
from conformance.judges import legacy
from conformance.wire.exchange import Exchange, Headers
from tests.judges.exchanges import event, request


def routing(exchange: Exchange) -> Route:
    """What a request of an appservice without a base path asks."""
    return route_of(exchange, "")


TOKEN: Headers = (("Authorization", "Bearer hs"),)


def current(txn_id: str = "1", *events: Any, status: int | None = 404, **fields: Any) -> Exchange:
    """A transaction on the present route."""
    body = {"events": list(events or [event("$1")])}
    fields.setdefault("headers", TOKEN)
    return request(f"/_matrix/app/v1/transactions/{txn_id}", body, status=status, **fields)


def old(txn_id: str = "1", *events: Any, status: int | None = 200, **fields: Any) -> Exchange:
    """A transaction on the legacy route."""
    fields.setdefault("headers", TOKEN)
    return request(f"/transactions/{txn_id}", {"events": list(events or [event("$1")])}, status=status, **fields)


def query(target: str, status: int = 404) -> Exchange:
    """A query."""
    return request(target, method="GET", headers=TOKEN, status=status)


def test_a_fallback_after_a_refusal_is_in_order() -> None:
    both = [current(), old()]
    assert legacy.too_early(both, routing) is None
    assert legacy.uncalled_for(both, routing) is None
    assert legacy.difference(both[1], both[0], routing) is None


def test_the_legacy_route_first_is_too_early_and_uncalled_for() -> None:
    both = [old(), current()]
    assert legacy.too_early(both, routing) is both[0]
    assert legacy.uncalled_for(both, routing) is both[0]


def test_a_fallback_before_the_answer_is_too_early() -> None:
    first = current(started=10.0)
    assert legacy.too_early([first, old(started=10.05)], routing) is not None
    assert legacy.too_early([first, old(started=10.2)], routing) is None


def test_a_fallback_of_what_succeeded_is_uncalled_for() -> None:
    both = [current(status=200), old()]
    assert legacy.uncalled_for(both, routing) is both[1]


def test_what_was_never_answered_has_been_tried() -> None:
    both = [current(status=None), old()]
    assert legacy.too_early(both, routing) is None
    assert legacy.uncalled_for(both, routing) is None


def test_a_legacy_route_that_has_worked_may_be_remembered() -> None:
    requests = [current(), old(), old("2", event("$2"))]
    assert legacy.too_early(requests, routing) is None
    assert legacy.uncalled_for(requests, routing) is requests[2]


@pytest.mark.parametrize(
    ("repetition", "told"),
    [
        (old("2"), "'2' in place of '1'"),
        (old(method="POST"), "POST in place of PUT"),
        (old(headers=()), "other credentials"),
        (old("1", event("$1"), event("$2")), "1 events added ($2)"),
    ],
)
def test_a_repetition_that_differs_is_told(repetition: Exchange, told: str) -> None:
    assert legacy.difference(repetition, current(), routing) == told


@pytest.mark.parametrize(
    ("present", "former"),
    [
        ("/_matrix/app/v1/users/%40a%3Ahq.test", "/users/%40a%3Ahq.test"),
        ("/_matrix/app/v1/rooms/%23a%3Ahq.test", "/rooms/%23a:hq.test"),
        ("/_matrix/app/v1/thirdparty/protocol/x", "/_matrix/app/unstable/thirdparty/protocol/x"),
        ("/_matrix/app/v1/thirdparty/user/x?a=1&b=2", "/_matrix/app/unstable/thirdparty/user/x?b=2&a=1"),
    ],
)
def test_queries_and_look_ups_are_known_in_both_forms(present: str, former: str) -> None:
    one, other = query(present), query(former, status=200)
    assert legacy.repeated(other, [one], routing) == [one]
    assert legacy.difference(other, one, routing) is None


def test_a_query_about_somebody_else_repeats_nothing() -> None:
    one, other = query("/_matrix/app/v1/users/%40a%3Ahq.test"), query("/users/%40b%3Ahq.test")
    assert legacy.repeated(other, [one], routing) == []


def test_a_token_in_the_query_is_no_field() -> None:
    assert legacy.fields(query("/users/x?access_token=hs&a=1")) == [("a", "1")]


@given(st.lists(st.sampled_from(["current", "old"]), min_size=1, max_size=8))
def test_whatever_comes_in_pairs_is_in_order(kinds: list[str]) -> None:
    """Refused on the present route, then repeated on the legacy one: never too early, never uncalled for."""
    requests = []
    for number, _ in enumerate(kinds):
        requests += [current(str(number), event(f"${number}")), old(str(number), event(f"${number}"))]
    assert legacy.too_early(requests, routing) is None
    assert legacy.uncalled_for(requests, routing) is None
