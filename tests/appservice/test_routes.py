"""What a request to an appservice asks is known however a homeserver writes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.appservice.routes import Kind, Route, route, route_of
from conformance.homeserver.client import segment
from conformance.wire.exchange import Direction
from conformance.wire.journal import Journal

V1, UNSTABLE = "/_matrix/app/v1", "/_matrix/app/unstable"


@pytest.mark.parametrize("base", ["", "/as/second"])
@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("PUT", f"{V1}/transactions/7", Route(Kind.TRANSACTION, False, "7")),
        ("GET", f"{V1}/users/%40a%3Ahs", Route(Kind.USER, False, "@a:hs")),
        ("GET", f"{V1}/rooms/%23a%3Ahs", Route(Kind.ALIAS, False, "#a:hs")),
        ("POST", f"{V1}/ping", Route(Kind.PING)),
        ("GET", f"{V1}/thirdparty/protocol/hqp%20a%2Fb", Route(Kind.PROTOCOL, False, "hqp a/b")),
        ("GET", f"{V1}/thirdparty/user/irc", Route(Kind.THIRDPARTY_USERS, False, "irc")),
        ("GET", f"{V1}/thirdparty/location/irc", Route(Kind.THIRDPARTY_LOCATIONS, False, "irc")),
        ("GET", f"{V1}/thirdparty/user", Route(Kind.REVERSE_USER)),
        ("GET", f"{V1}/thirdparty/location", Route(Kind.REVERSE_LOCATION)),
        ("GET", f"{UNSTABLE}/thirdparty/protocol/irc", Route(Kind.PROTOCOL, True, "irc")),
        ("GET", f"{UNSTABLE}/thirdparty/user", Route(Kind.REVERSE_USER, True)),
        ("PUT", "/transactions/7", Route(Kind.TRANSACTION, True, "7")),
        ("GET", "/users/%40a%3Ahs", Route(Kind.USER, True, "@a:hs")),
        ("GET", "/rooms/%23a%3Ahs", Route(Kind.ALIAS, True, "#a:hs")),
    ],
)
def test_every_route_is_known(base: str, method: str, path: str, expected: Route) -> None:
    assert route(method, base + path, base) == expected


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", ""),
        ("GET", V1),
        ("GET", f"{V1}/users/"),
        ("GET", f"{V1}/users"),
        ("POST", f"{V1}/ping/more"),
        ("GET", f"{V1}/thirdparty"),
        ("GET", "/_matrix/app/v2/users/%40a"),
        ("PUT", "/_matrix/app/v1transactions/7"),
    ],
)
def test_anything_else_is_an_unknown_route(method: str, path: str) -> None:
    assert route(method, path, "").kind is Kind.UNKNOWN


def test_a_wrong_method_is_the_route_all_the_same() -> None:
    found = route("POST", f"{V1}/transactions/7", "")
    assert (found.kind, found.right_method) == (Kind.TRANSACTION, False)


def test_a_lost_base_path_is_the_route_all_the_same() -> None:
    found = route("PUT", f"{V1}/transactions/7", "/as/second")
    assert (found.kind, found.under_base) == (Kind.TRANSACTION, False)


def test_a_doubled_slash_is_the_route_all_the_same() -> None:
    found = route("PUT", f"/as/limited/{V1}/transactions/7", "/as/limited")
    assert (found.kind, found.subject, found.under_base) == (Kind.TRANSACTION, "7", True)


@given(st.text(min_size=1))
def test_a_subject_is_what_was_encoded(subject: str) -> None:
    try:
        encoded = segment(subject)
    except UnicodeEncodeError:  # a lone surrogate has no encoding
        return
    assert route("GET", f"{V1}/users/{encoded}", "").subject == subject


def test_an_exchange_is_routed_by_its_path_alone() -> None:
    exchange = Journal().open(Direction.TO_APPSERVICE, "A", "GET", "/x/users/%40a%3Ahs?y=/rooms/z", ())
    assert route_of(exchange, "/x") == Route(Kind.USER, True, "@a:hs")
