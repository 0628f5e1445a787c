"""Worlds are shrunk to the smallest registrations and IDs with few boots; the homeserver is a function here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from conformance.appservice.registration import Namespace
from conformance.homeserver.client import Response
from conformance.homeserver.process import TargetFailed
from conformance.namespaces.fuzz import Plan
from conformance.namespaces.worlds import BOOTS, Booted, World, Worlds, registrations
from conformance.verdict import Inconclusive
from conformance.wire.exchange import Direction, Exchange

Entries = tuple[tuple[str, Namespace], ...]


def response(reserved: bool) -> Response:
    """An answer of a homeserver."""
    body: dict[str, object] = {"errcode": "M_EXCLUSIVE"} if reserved else {"flows": []}
    exchange = Exchange(
        number=1,
        direction=Direction.TO_HOMESERVER,
        party="world",
        method="POST",
        target="/register",
        request_headers=(),
        started=0.0,
        status=400 if reserved else 401,
        response_body=json.dumps(body).encode(),
    )
    return Response(exchange)


class Fake(Worlds):
    """Worlds on a homeserver that is a function of entries and an ID."""

    def __init__(self, reserves: Callable[[Entries, str], bool], count: int, seed: int = 1) -> None:
        run: Any = SimpleNamespace(plan=Plan(seed, 100, count))
        super().__init__(run, "users")
        self.reserves = reserves
        self.loaded: list[Entries] = []

    def _boot(self, entries: Entries) -> Booted:
        self.boots += 1
        self.loaded.append(entries)
        booted: Any = SimpleNamespace(url="http://127.0.0.1:8008")
        booted.ask = lambda world: self._answer(entries, world)
        self._up = (entries, booted)
        return booted  # type: ignore[no-any-return]

    def _answer(self, entries: Entries, world: World) -> tuple[bool | None, Response]:
        if world.asker:
            return None, response(False)
        reserved = self.reserves(entries, world.identifier)
        return reserved, response(reserved)


def right(entries: Entries, identifier: str) -> bool:
    """A homeserver that is right."""
    return any(entry.exclusive and re.match(entry.regex, identifier) for _, entry in entries)


def first_decides(entries: Entries, identifier: str) -> bool:
    """One for which the first entry of each appservice decides."""
    first: dict[str, bool] = {}
    for owner, entry in entries:
        if re.match(entry.regex, identifier):
            first.setdefault(owner, entry.exclusive)
    return any(first.values())


def test_a_right_homeserver_is_booted_once() -> None:
    worlds = Fake(right, 300)
    assert worlds.search() == {}
    assert worlds.boots == 1
    tags = [re.findall(r"hqf\d+", entry.regex)[0] for _, entry in worlds.loaded[0]]
    assert len(set(tags)) > 150


@pytest.mark.parametrize("seed", range(5))
def test_a_wrong_homeserver_leaves_a_minimal_world_after_few_boots(seed: int) -> None:
    worlds = Fake(first_decides, 300, seed)
    (finding,) = worlds.search().values()
    assert finding.blamed == "layered"
    world = finding.question
    assert [entry.exclusive for _, entry in world.entries] == [False, True]
    assert len({owner for owner, _ in world.entries}) == 1
    assert sum(len(entry.regex) for _, entry in world.entries) <= 2 * len(r"@hqf000.*:hq\.test")
    assert len(world.identifier) <= len("@hqf000-a:hq.test")
    assert worlds.boots <= BOOTS


def test_what_is_left_can_be_repeated_from_its_text() -> None:
    finding = Fake(lambda entries, identifier: "/" not in identifier and right(entries, identifier), 300).search()[
        "plain"
    ]
    assert "M_EXCLUSIVE for a human and @hqf" in finding.expected
    (line,) = [line for line in finding.seen.splitlines() if "hq-world-f1.yaml: " in line]
    content = json.loads(line.partition(".yaml: ")[2])
    (entry, *_) = content["namespaces"]["users"]
    assert re.search(entry["regex"], finding.question.identifier)
    assert f'"{finding.question.identifier[1:].partition(":")[0]}"' in finding.seen


def test_a_homeserver_that_does_not_start_with_them_is_not_judged() -> None:
    class Refusing(Fake):
        def _boot(self, entries: Entries) -> Booted:
            raise TargetFailed("it refuses overlapping namespaces")

    with pytest.raises(Inconclusive, match="overlapping"):
        Refusing(right, 50).search()


def test_registrations_of_a_world_have_every_list_in_order() -> None:
    one, other = Namespace("@hqf000.*", False), Namespace("@hqf000-.*", True)
    files = registrations("users", (("F2", one), ("F1", other), ("F2", other)))
    assert [each.users for each in files] == [(other,), (one, other), ()]
    assert all(each.url is None for each in files)
