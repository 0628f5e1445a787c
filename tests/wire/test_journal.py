"""The journal: everything in order, nothing missed by those who wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

import pytest

from conformance.wire.exchange import Direction, Exchange, NotJson, Phase
from conformance.wire.journal import HarnessFailure, Journal


@pytest.fixture
def journal() -> Journal:
    return Journal()


def open_one(journal: Journal, target: str = "/x", **fields: object) -> Exchange:
    return journal.open(Direction.TO_APPSERVICE, "A", "GET", target, (), **fields)


def test_exchanges_stand_in_the_order_of_their_beginning(journal: Journal) -> None:
    first, second = open_one(journal, "/1"), open_one(journal, "/2")
    journal.update(first, phase=Phase.DONE, status=200)
    assert list(journal) == [first, second]
    assert [exchange.number for exchange in journal] == [1, 2]
    assert len(journal) == 2


def test_a_marker_divides_before_from_after(journal: Journal) -> None:
    open_one(journal)
    marker = journal.marker()
    later = open_one(journal)
    assert journal.since(marker) == [later]
    assert journal.since(marker, lambda exchange: exchange.target == "/other") == []


def test_the_requests_to_one_appservice_are_found_among_others(journal: Journal) -> None:
    first = open_one(journal)
    journal.open(Direction.TO_APPSERVICE, "B", "GET", "/x", ())
    marker = journal.marker()
    journal.open(Direction.TO_HOMESERVER, "A", "GET", "/x", ())  # asked by the same party
    second = open_one(journal)
    assert journal.since(0, to="A") == [first, second]
    assert journal.since(marker, to="A") == [second]
    assert journal.since(0, to="C") == []
    assert journal.wait_for(lambda exchange: exchange is not first, 0, 0.0, to="A") is second


def test_a_wait_for_one_appservice_sees_its_changes_only(journal: Journal) -> None:
    seen: list[Exchange] = []

    def probe(lot: Iterable[Exchange]) -> bool | None:
        seen.extend(lot)
        return None if len(seen) < 2 else True

    own = open_one(journal)
    timer = threading.Timer(0.05, journal.update, (own,), {"phase": Phase.DONE})
    timer.start()
    journal.open(Direction.TO_APPSERVICE, "B", "GET", "/x", ())
    assert journal.wait_until(probe, 0, 5.0, to="A")
    assert seen == [own, own]


def test_what_was_there_before_anyone_waited_is_found_at_once(journal: Journal) -> None:
    marker = journal.marker()
    exchange = open_one(journal)
    began = time.monotonic()
    assert journal.wait_for(lambda each: each.target == "/x", marker, 5.0) is exchange
    assert time.monotonic() - began < 1


def test_what_was_there_before_the_marker_is_not_found(journal: Journal) -> None:
    exchange = open_one(journal)
    marker = journal.marker()
    assert journal.wait_for(lambda _: True, marker, 0.05) is None
    threading.Timer(0.05, journal.update, (exchange,), {"status": 200}).start()
    assert journal.wait_for(lambda _: True, marker, 0.2) is None


def test_an_exchange_that_changes_is_looked_at_again(journal: Journal) -> None:
    exchange = open_one(journal)
    threading.Timer(0.05, journal.update, (exchange,), {"status": 200, "phase": Phase.DONE}).start()
    assert journal.wait_for(lambda each: each.status == 200, 0, 5.0) is exchange


def test_a_wait_ends_in_time_while_other_things_go_on(journal: Journal) -> None:
    stop = threading.Event()

    def chatter() -> None:
        while not stop.wait(0.01):
            open_one(journal)

    thread = threading.Thread(target=chatter)
    thread.start()
    began = time.monotonic()
    assert journal.wait_for(lambda each: each.target == "/never", 0, 0.2) is None
    stop.set()
    thread.join()
    assert 0.2 <= time.monotonic() - began < 2


def test_a_probe_sees_every_change_and_the_first_answer_counts(journal: Journal) -> None:
    seen: list[int] = []

    def probe(lot: Iterable[Exchange]) -> int | None:
        seen.extend(exchange.number for exchange in lot)
        return len(seen) if len(seen) >= 3 else None

    open_one(journal)
    threading.Timer(0.02, open_one, (journal,)).start()
    threading.Timer(0.04, open_one, (journal,)).start()
    assert journal.wait_until(probe, 0, 5.0) == 3
    assert seen == [1, 2, 3]


def test_many_threads_lose_nothing(journal: Journal) -> None:
    def work() -> None:
        for _ in range(200):
            journal.update(open_one(journal), phase=Phase.DONE)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [exchange.number for exchange in journal] == list(range(1, 1601))
    assert all(exchange.phase is Phase.DONE for exchange in journal)


def test_a_failure_of_the_suites_own_threads_reaches_everyone(journal: Journal) -> None:
    threading.Timer(0.05, journal.fail, (ZeroDivisionError("oops"),)).start()
    with pytest.raises(HarnessFailure, match="oops"):
        journal.wait_for(lambda _: True, 0, 5.0)
    with pytest.raises(HarnessFailure):
        journal.since()
    journal.fail(ValueError("later"))
    with pytest.raises(HarnessFailure, match="oops"):
        journal.check()


def test_the_two_clocks_of_the_beginning_agree(journal: Journal) -> None:
    assert abs((time.time() - journal.began_at) - (time.monotonic() - journal.began)) < 0.5


def test_paths_and_queries_are_given_raw_and_decoded(journal: Journal) -> None:
    exchange = open_one(journal, "/users/%40a%2Fb:hs?x=%20y+z&x=&e")
    assert exchange.raw_path == "/users/%40a%2Fb:hs"
    assert exchange.path == "/users/@a/b:hs"
    assert exchange.raw_query == "x=%20y+z&x=&e"
    assert exchange.query == [("x", " y z"), ("x", ""), ("e", "")]


def test_headers_are_found_in_any_case_and_all_of_them(journal: Journal) -> None:
    headers = (("X-A", "1"), ("x-a", "2"))
    exchange = journal.open(Direction.TO_APPSERVICE, "A", "GET", "/", headers)
    assert exchange.request_header("X-a") == ["1", "2"]
    assert exchange.response_header("X-a") == []


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json_says_so(journal: Journal, body: bytes) -> None:
    with pytest.raises(NotJson):
        _ = open_one(journal, request_body=body, phase=Phase.PENDING).request_json


def test_a_body_is_parsed_as_it_stands_while_it_arrives(journal: Journal) -> None:
    exchange = open_one(journal, request_body=b"[1")
    with pytest.raises(NotJson):
        _ = exchange.request_json
    journal.update(exchange, request_body=b"[1]", phase=Phase.PENDING)
    assert exchange.request_json == [1]


def test_an_exchange_shows_itself_in_one_line(journal: Journal) -> None:
    exchange = open_one(journal)
    assert str(exchange) == "#1 to-appservice A GET /x -> arriving"
    journal.update(exchange, failure="cut", phase=Phase.DONE)
    assert str(exchange).endswith("-> cut")
    journal.update(exchange, status=200)
    assert str(exchange).endswith("-> 200")
