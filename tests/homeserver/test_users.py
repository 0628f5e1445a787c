"""Those who act on the homeserver: what they send, and what they say when set-up fails."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pytest
from pytest_httpserver import HTTPServer

from conformance.homeserver.client import Client
from conformance.homeserver.process import free_port
from conformance.homeserver.users import Names, User
from conformance.verdict import Inconclusive
from conformance.wire.journal import Journal

V3 = "/_matrix/client/v3"
ROOM = "!r/oom:hs"


@pytest.fixture
def client(httpserver: HTTPServer) -> Iterator[Client]:
    made = Client(httpserver.url_for(""), Journal())
    yield made
    made.close()


@pytest.fixture
def human(client: Client) -> User:
    return User(client, Names(), "H", "token of H", "@human:hs:8448")


@pytest.fixture
def ghost(client: Client) -> User:
    return User(client, Names(), "A as g", "as_token", "@ghost/ä:hs", asserted=True)


def test_a_human_is_its_token_alone(human: User, httpserver: HTTPServer) -> None:
    httpserver.expect_request(f"{V3}/x").respond_with_json({})
    human.call("GET", "/x")
    request = httpserver.log[0][0]
    assert request.headers["Authorization"] == "Bearer token of H"
    assert request.query_string == b""


def test_a_ghost_asserts_its_user_id_in_every_call(ghost: User, httpserver: HTTPServer) -> None:
    httpserver.expect_request(f"{V3}/x").respond_with_json({})
    ghost.call("GET", "/x", query={"ts": "7"})
    request = httpserver.log[0][0]
    assert request.headers["Authorization"] == "Bearer as_token"
    assert dict(request.args) == {"user_id": "@ghost/ä:hs", "ts": "7"}
    assert ghost.client.journal.since()[0].raw_query == "user_id=%40ghost%2F%C3%A4%3Ahs&ts=7"


def test_a_check_may_assert_something_else(ghost: User, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/_matrix/client/v1/x").respond_with_json({})
    ghost.call("GET", "/_matrix/client/v1/x", query={"user_id": "@other:hs"}, token="another")
    request = httpserver.log[0][0]
    assert dict(request.args) == {"user_id": "@other:hs"}
    assert request.headers["Authorization"] == "Bearer another"


def test_the_parts_of_a_user_id_are_known(human: User, ghost: User) -> None:
    assert (human.localpart, human.server_name) == ("human", "hs:8448")
    assert (ghost.localpart, ghost.server_name) == ("ghost/ä", "hs")
    assert str(human) == "@human:hs:8448"
    assert human.alias("x") == "#x:hs:8448"


@pytest.mark.parametrize(
    ("act", "method", "path", "body"),
    [
        (lambda u: u.join("#a b:hs"), "POST", "/join/%23a%20b%3Ahs", {}),
        (lambda u: u.leave(ROOM), "POST", "/rooms/%21r%2Foom%3Ahs/leave", {}),
        (lambda u: u.invite(ROOM, "@g:hs"), "POST", "/rooms/%21r%2Foom%3Ahs/invite", {"user_id": "@g:hs"}),
        (lambda u: u.kick(ROOM, "@g:hs"), "POST", "/rooms/%21r%2Foom%3Ahs/kick", {"user_id": "@g:hs"}),
        (lambda u: u.ban(ROOM, "@g:hs"), "POST", "/rooms/%21r%2Foom%3Ahs/ban", {"user_id": "@g:hs"}),
        (lambda u: u.unban(ROOM, "@g:hs"), "POST", "/rooms/%21r%2Foom%3Ahs/unban", {"user_id": "@g:hs"}),
        (lambda u: u.set_alias("#a:hs", ROOM), "PUT", "/directory/room/%23a%3Ahs", {"room_id": ROOM}),
        (lambda u: u.remove_alias("#a:hs"), "DELETE", "/directory/room/%23a%3Ahs", None),
        (lambda u: u.create_room(), "POST", "/createRoom", {"preset": "public_chat"}),
        (lambda u: u.create_room(preset="x", name="n"), "POST", "/createRoom", {"preset": "x", "name": "n"}),
        (lambda u: u.set_state(ROOM, "m.x", {"a": 1}), "PUT", "/rooms/%21r%2Foom%3Ahs/state/m.x/", {"a": 1}),
        (
            lambda u: u.set_state(ROOM, "m.x", {}, "@g:hs"),
            "PUT",
            "/rooms/%21r%2Foom%3Ahs/state/m.x/%40g%3Ahs",
            {},
        ),
    ],
)
def test_a_verb_is_the_call_of_the_specification(
    human: User,
    httpserver: HTTPServer,
    act: Callable[[User], object],
    method: str,
    path: str,
    body: object,
) -> None:
    httpserver.expect_request(re.compile(".*")).respond_with_json({"room_id": "!new", "event_id": "$e"})
    act(human)
    (exchange,) = human.client.journal
    assert (exchange.method, exchange.target) == (method, V3 + path)
    assert (json.loads(exchange.request_body) if exchange.request_body else None) == body


def test_every_message_has_a_text_and_a_transaction_of_its_own(human: User, httpserver: HTTPServer) -> None:
    httpserver.expect_request(re.compile(".*")).respond_with_json({"event_id": "$e"})
    assert human.send(ROOM) == human.send(ROOM) == "$e"
    one, other = human.client.journal
    assert one.target != other.target
    assert one.request_json["body"] != other.request_json["body"]
    assert one.request_json["msgtype"] == "m.text"


def test_set_up_that_is_refused_makes_the_check_inconclusive(human: User, httpserver: HTTPServer) -> None:
    httpserver.expect_request(re.compile(".*")).respond_with_json({"errcode": "M_FORBIDDEN"}, status=403)
    with pytest.raises(
        Inconclusive, match="set-up: @human:hs:8448 could not join !r: answered 403 M_FORBIDDEN"
    ) as error:
        human.join("!r")
    assert error.value.evidence == tuple(human.client.journal)


def test_set_up_without_an_answer_makes_the_check_inconclusive() -> None:
    human = User(Client(f"http://127.0.0.1:{free_port()}", Journal()), Names(), "H", "t", "@h:hs")
    with pytest.raises(Inconclusive, match=r"could not create a room: .* the connection was refused"):
        human.create_room()


@pytest.mark.parametrize("body", [{}, {"room_id": None}, {"room_id": 7}])
def test_set_up_that_is_answered_without_what_was_asked_for_is_inconclusive(
    human: User, httpserver: HTTPServer, body: object
) -> None:
    httpserver.expect_request(re.compile(".*")).respond_with_json(body)
    with pytest.raises(Inconclusive, match="without a room_id"):
        human.create_room()


@pytest.mark.parametrize(
    ("status", "body", "room"),
    [(200, {"room_id": "!r"}, "!r"), (404, {"errcode": "M_NOT_FOUND"}, None), (200, {}, None), (500, {}, None)],
)
def test_an_alias_resolves_or_does_not(
    human: User, httpserver: HTTPServer, status: int, body: object, room: str | None
) -> None:
    httpserver.expect_request(re.compile(".*")).respond_with_json(body, status=status)
    assert human.resolve("#a:hs") == room


def test_the_timeline_is_oldest_first(human: User, httpserver: HTTPServer) -> None:
    httpserver.expect_request(re.compile(".*")).respond_with_json({"chunk": [{"event_id": "$2"}, {"event_id": "$1"}]})
    assert [event["event_id"] for event in human.timeline(ROOM)] == ["$1", "$2"]


def test_somebodys_membership_is_found_in_the_state(human: User, httpserver: HTTPServer) -> None:
    member = {"type": "m.room.member", "state_key": "@g:hs", "event_id": "$m"}
    httpserver.expect_request(re.compile(".*")).respond_with_json([{"type": "m.room.name", "state_key": ""}, member])
    assert human.member_event(ROOM, "@g:hs") == "$m"
    with pytest.raises(Inconclusive, match="no membership of @other:hs"):
        human.member_event(ROOM, "@other:hs")


def test_names_are_fresh_lower_case_and_never_only_digits() -> None:
    names = Names()
    made = [names.fresh("hqa-") for _ in range(100)]
    assert len(set(made)) == 100
    assert all(re.fullmatch(r"hqa-[a-z]{5}[0-9]+", name) for name in made)
    assert Names().run != names.run
