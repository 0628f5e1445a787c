from __future__ import annotations

import pytest

from conformance.judges import events
from tests.judges.exchanges import event


def test_a_client_event_passes_whatever_else_it_has() -> None:
    assert events.form_problem(event("$1", state_key=None, unsigned="x", more=1)) is None
    assert events.form_problem(event("$1", origin_server_ts=1.0)) is None


@pytest.mark.parametrize(
    "broken",
    [
        "event",
        {key: value for key, value in event("$1").items() if key != "room_id"},
        event("1"),
        event("$1", sender="h"),
        event("$1", room_id="#r"),
        event("$1", origin_server_ts="1"),
        event("$1", origin_server_ts=True),
        event("$1", content=[]),
        event("$1", type=None),
    ],
)
def test_broken_events(broken: object) -> None:
    assert events.form_problem(broken)


def test_unsigned() -> None:
    assert events.unsigned_problem(event("$1")) is None
    assert events.unsigned_problem(event("$1", unsigned={"age": -1, "x": []})) is None
    assert events.unsigned_problem(event("$1", unsigned=None))
    assert events.unsigned_problem(event("$1", unsigned={"age": "1"}))


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), ({"a": [1], "b": None}, {"b": None, "a": [1]}), ("é", "é")])
def test_the_same(one: object, other: object) -> None:
    assert events.same(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, True), (0, False), (1, "1"), ([1, 2], [2, 1]), ({"a": None}, {}), ([], {}), (None, False), ([1], [1, 2])],
)
def test_not_the_same(one: object, other: object) -> None:
    assert not events.same(one, other)
    assert not events.same(other, one)


def test_age_does_not_count() -> None:
    assert events.without_age(event("$1", age=1, unsigned={"age": 2})) == event("$1", unsigned={})
    assert events.without_age("x") == "x"


def test_absent_is_not_null() -> None:
    assert events.differing_keys({"a": None}, {}, ("a", "b")) == ["a"]
