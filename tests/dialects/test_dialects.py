"""What the dialects of 2015 and of r0 make of paths, bodies, namespaces and events."""

from __future__ import annotations

import pytest

from conformance.appservice.registration import Namespace, Registration
from conformance.appservice.roster import DRAFTED, OPTIONAL, ROSTER, of_dialect
from conformance.appservice.routes import Kind, route
from conformance.catalogue.versions import OLD_DIALECTS, Version
from conformance.dialects import CLIENT, DIALECTS, MODERN, dialect_of

REGISTRATION = Registration(
    code="A",
    id="a",
    url="http://127.0.0.1:1/as/",
    as_token="T_a",
    hs_token="",
    sender_localpart="bot",
    users=(Namespace("@own-.*", exclusive=True), Namespace("@open-.*", exclusive=False)),
    aliases=(Namespace("#own-.*", exclusive=True),),
    rooms=(Namespace("!own-.*", exclusive=False),),
)


def test_every_old_version_has_a_dialect_and_the_newest_is_the_default() -> None:
    assert set(DIALECTS) == {"modern", *OLD_DIALECTS.values()}
    assert dialect_of(None) is MODERN
    assert dialect_of(Version.parse("v1.3")) is MODERN
    assert dialect_of(Version.parse("r0")).name == "r0"


@pytest.mark.parametrize(
    ("name", "namespaces"),
    [
        ("draft-003", {"users": ["own-.*"], "aliases": ["own-.*"], "rooms": []}),
        ("draft-001", {"users": ["@own-.*"], "aliases": ["#own-.*"], "rooms": ["!own-.*"]}),
        ("draft-000", {"users": ["@own-.*"], "aliases": ["#own-.*"], "rooms": ["!own-.*"]}),
        (
            "draft-004",
            {
                "users": [{"exclusive": True, "regex": "@own-.*"}, {"exclusive": False, "regex": "@open-.*"}],
                "aliases": [{"exclusive": True, "regex": "#own-.*"}],
                "rooms": [],
            },
        ),
    ],
)
def test_namespaces_have_the_shape_of_their_draft(name: str, namespaces: object) -> None:
    admission = DIALECTS[name].admission
    assert admission is not None
    body = admission.body(REGISTRATION)
    assert body == {"url": "http://127.0.0.1:1/as/", "as_token": "T_a", "namespaces": namespaces}


def test_paths_are_moved_below_the_base_of_the_dialect() -> None:
    draft = DIALECTS["draft-001"]
    assert draft.placed(f"{CLIENT}/createRoom") == "/_matrix/client/api/v1/createRoom"
    assert draft.placed("/_matrix/app/r0/user") == "/_matrix/app/r0/user"
    assert draft.admin_path("register") == "/_matrix/appservice/v1/register"
    assert draft.ready_path == "/_matrix/client/api/v1/login"
    assert MODERN.placed(f"{CLIENT}/createRoom") == f"{CLIENT}/createRoom"
    assert MODERN.ready_path == "/_matrix/client/versions"
    with pytest.raises(LookupError):
        DIALECTS["r0"].admin_path("register")


def test_base_paths_can_be_others() -> None:
    moved = DIALECTS["draft-004"].with_bases("/client", "/appservice")
    assert moved.placed(f"{CLIENT}/login") == "/client/login"
    assert moved.admin_path("unregister") == "/appservice/unregister"
    assert DIALECTS["draft-004"].with_bases(None, None) == DIALECTS["draft-004"]


def test_bodies_are_those_of_the_time() -> None:
    draft = DIALECTS["draft-004"]
    assert draft.human("bob", "secret") == {"type": "m.login.password", "user": "bob", "password": "secret"}
    assert MODERN.human("bob", "secret") == {"username": "bob", "password": "secret"}
    assert draft.login("m.login.password", "bob", password="x") == {
        "type": "m.login.password",
        "user": "bob",
        "password": "x",
    }
    assert draft.ghost("bob")["user"] == "bob"
    assert MODERN.ghost("bob") == {"type": "m.login.application_service", "username": "bob", "inhibit_login": True}
    assert draft.room({"preset": "public_chat", "name": "A room"}) == {"visibility": "public", "name": "A room"}
    assert draft.room({"preset": "private_chat"}) == {"visibility": "private"}
    assert draft.room({}) == {}
    assert MODERN.room({"preset": "public_chat"}) == {"preset": "public_chat"}


def test_events_are_shown_with_the_sender_of_today() -> None:
    draft = DIALECTS["draft-001"]
    assert draft.seen({"user_id": "@bob:x"}) == {"user_id": "@bob:x", "sender": "@bob:x"}
    assert draft.seen({"user_id": "@bob:x", "sender": "@alice:x"})["sender"] == "@alice:x"
    assert MODERN.seen({"user_id": "@bob:x"}) == {"user_id": "@bob:x"}


def test_routes_are_right_below_the_url_and_those_of_today_are_known() -> None:
    table = DIALECTS["draft-001"].table
    found = route("PUT", "/as/transactions/7", "/as", table)
    assert (found.kind, found.subject, found.legacy) == (Kind.TRANSACTION, "7", False)
    raw = route("GET", "/users/@irc.freenode.net/Bob:hsdomain.com", "", table)
    assert (raw.kind, raw.subject) == (Kind.USER, "@irc.freenode.net/Bob:hsdomain.com")
    assert route("PUT", "/_matrix/app/v1/transactions/7", "", table).kind is Kind.TRANSACTION
    assert route("POST", "/_matrix/app/v1/ping", "", table).kind is Kind.UNKNOWN


def test_appservices_without_a_url_do_not_register_themselves() -> None:
    assert of_dialect(MODERN) == (*ROSTER, *OPTIONAL)
    drafted = of_dialect(DIALECTS["draft-003"])
    assert "N" not in [role.code for role in drafted]
    assert drafted[-len(DRAFTED) :] == DRAFTED
