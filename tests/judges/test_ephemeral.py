from __future__ import annotations

from conformance.judges import ephemeral
from conformance.wire.exchange import Direction, Exchange
from tests.judges.exchanges import request

TYPING = {"type": "m.typing", "room_id": "!r", "content": {"user_ids": ["@h:hq.test"]}}
RECEIPT = {"type": "m.receipt", "room_id": "!r", "content": {"$1": {"m.read": {"@h:hq.test": {"ts": 1}}}}}


def call(target: str) -> Exchange:
    exchange = request(target)
    exchange.direction = Direction.TO_HOMESERVER
    return exchange


def test_whole_texts_are_mentioned_as_keys_and_as_values() -> None:
    assert ephemeral.mentions(TYPING, "@h:hq.test", "!r")
    assert ephemeral.mentions(RECEIPT, "@h:hq.test", "$1")
    assert not ephemeral.mentions(TYPING, "@h:hq")
    assert not ephemeral.mentions(TYPING, "!r", "$1")


def test_only_the_time_since_somebody_was_active_is_told_anew() -> None:
    presence = {"type": "m.presence", "sender": "@h:hq.test", "content": {"presence": "online", "last_active_ago": 5}}
    later = {**presence, "content": {"presence": "online", "last_active_ago": 9000}}
    assert ephemeral.unaged([presence, TYPING]) == ephemeral.unaged([later, TYPING])
    assert ephemeral.unaged([presence]) != ephemeral.unaged([{**later, "content": {"presence": "offline"}}])
    assert ephemeral.unaged([{"type": "m.presence", "content": 1}]) == [{"type": "m.presence", "content": 1}]
    assert ephemeral.unaged([TYPING, RECEIPT]) == [TYPING, RECEIPT]


def test_what_has_the_client_format_is_read() -> None:
    assert ephemeral.typists(TYPING) == ["@h:hq.test"]
    assert ephemeral.typists({"type": "m.typing", "content": {"user_id": "@h:hq.test"}}) is None
    assert ephemeral.typists({"type": "m.typing", "content": []}) is None
    assert ephemeral.receipt(RECEIPT, "$1", "m.read", "@h:hq.test") == {"ts": 1}
    assert ephemeral.receipt(RECEIPT, "$1", "m.read.private", "@h:hq.test") is None
    assert ephemeral.receipt({"content": {"$1": []}}, "$1", "m.read", "@h:hq.test") is None


def test_subjects_are_who_types_and_what_was_read() -> None:
    assert ephemeral.subjects(TYPING) == ["@h:hq.test"]
    assert ephemeral.subjects(RECEIPT) == ["$1"]
    assert ephemeral.subjects({"type": "m.receipt", "content": []}) == []
    assert ephemeral.subjects({"type": "m.presence", "sender": "@h:hq.test", "content": {}}) == []


def test_the_acts_of_users_are_read_from_their_calls() -> None:
    rooms = "/_matrix/client/v3/rooms"
    calls = [
        call(f"{rooms}/%21r/typing/%40h%3Ahq.test"),
        call(f"{rooms}/%21s/typing/%40h%3Ahq.test?user_id=%40h%3Ahq.test"),
        call(f"{rooms}/%21r/receipt/m.read/%241"),
        call(f"{rooms}/%21r/send/m.room.message/t1"),
        request(f"{rooms}/%21t/typing/%40h%3Ahq.test"),
    ]
    assert ephemeral.acts(calls) == {"@h:hq.test": {"!r", "!s"}, "$1": {"!r"}}
