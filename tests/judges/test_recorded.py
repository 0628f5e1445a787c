"""The judges, on journals that the reference homeserver left behind with and without a defect."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from conformance.appservice.roster import ROLES
from conformance.appservice.routes import Kind, Route, route_of
from conformance.judges import attempts, credentials, events, order, sameness, transactions
from conformance.judges.attempts import Attempt
from conformance.judges.backoff import Spacing
from conformance.wire.exchange import Direction, Exchange
from tests.judges.recorded import RECORDED, journal, path

#: Tokens as journals show them.
TOKENS = {code: f"<hs_token of {code}>" for code in ROLES}


def route(exchange: Exchange) -> Route:
    """What a request to an appservice asks."""
    return route_of(exchange, (ROLES[exchange.party].base_path or "").rstrip("/"))


def requests(name: str) -> list[Exchange]:
    """Everything that reached an appservice."""
    return [each for each in journal(name) if each.direction is Direction.TO_APPSERVICE]


def pushed(name: str, code: str | None = None) -> list[Exchange]:
    """The transactions, of one appservice or of all."""
    found = [each for each in requests(name) if transactions.is_transaction(each, route(each))]
    return [each for each in found if code in (None, each.party)]


def tries(name: str, code: str) -> list[Attempt]:
    """The logical attempts at an appservice."""
    return attempts.attempts(pushed(name, code), route, 3.0)


def failing(name: str, code: str) -> Spacing:
    """The spacing of the longest row of failures at an appservice."""
    rows: list[list[Attempt]] = [[]]
    for each in tries(name, code):
        if each.acknowledged:
            rows.append([])
        else:
            rows[-1].append(each)
    return Spacing.of([each.started for each in max(rows, key=len)])


def others(code: str) -> set[str]:
    """The tokens of all other appservices."""
    return {token for each, token in TOKENS.items() if each != code}


def first_of(*found: object) -> object:
    """The first finding that is none of None, False and empty."""
    return next((each for each in found if each), None)


#: What each judge finds in a journal; None: nothing.
JUDGES: dict[str, Callable[[str], object]] = {
    "transactions-have-no-token": lambda name: first_of(
        *(credentials.header_problem(each, TOKENS[each.party], others(each.party)) for each in requests(name))
    ),
    "the-query-has-another-token": lambda name: first_of(
        *(credentials.query_disagrees(each, TOKENS[each.party]) for each in requests(name))
    ),
    "all-get-the-token-of-the-first": lambda name: first_of(
        *(credentials.stranger(each, TOKENS[each.party], others(each.party)) for each in requests(name))
    ),
    "transactions-are-posted": lambda name: first_of(
        *(transactions.request_line_problem(each, route(each)) for each in pushed(name))
    ),
    "transactions-are-plain-text": lambda name: first_of(*map(transactions.media_type_problem, pushed(name))),
    "events-have-no-room-id": lambda name: first_of(
        *(events.form_problem(event) for each in pushed(name) for event in transactions.elements(each))
    ),
    "ages-are-text": lambda name: first_of(
        *(events.unsigned_problem(event) for each in pushed(name) for event in transactions.elements(each))
    ),
    "ids-are-seconds": lambda name: first_of(*(transactions.reused_id(pushed(name, code)) for code in ROLES)),
    "events-are-queued-twice": lambda name: first_of(
        *(transactions.delivered_twice(pushed(name, code)) for code in ("A", "B"))
    ),
    "the-last-transaction-comes-again": lambda name: transactions.repeated(pushed(name, "A")),
    "retries-have-ids-of-their-own": lambda name: first_of(
        *(
            len({each.txn_id for each in tries(name, "V1") if event in sameness.ids_of(each)}) > 1
            for event in _all(name)
        )
    ),
    "queues-are-flushed-into-retries": lambda name: first_of(
        *(sameness.alteration(tries(name, code)) for code in ("V1", "V2"))
    ),
    "queues-keep-event-ids-only": lambda name: sameness.alteration(tries(name, "V1")),
    "backoff-is-constant": lambda name: failing(name, "V4").lenient_problem(),
    "no-backoff-at-all": lambda name: failing(name, "V4").hot(0.05),
    "transactions-overlap": lambda name: attempts.overlap(
        each for each in pushed(name, "V2") if route(each).kind is Kind.TRANSACTION
    ),
    "every-twentieth-event-is-late": lambda name: order.first_inversion(_sent(name), _arrived(name, "A")),
}


def _all(name: str) -> list[str]:
    return [event for each in tries(name, "V1") for event in sameness.ids_of(each)]


def _sent(name: str) -> list[str]:
    """The messages of H's rooms in the order in which they were acknowledged."""
    calls = [each for each in journal(name) if each.direction is Direction.TO_HOMESERVER]
    sends = [each for each in calls if "/send/m.room.message/" in each.target and each.party == "H"]
    return [str(each.response_json["event_id"]) for each in sends if each.status == 200]


def _arrived(name: str, code: str) -> list[str]:
    return order.arrivals(event for each in pushed(name, code) for event in transactions.elements(each))


@pytest.mark.parametrize("name", JUDGES)
def test_a_judge_finds_its_defect_in_a_recorded_journal(name: str) -> None:
    assert JUDGES[name](name)


@pytest.mark.parametrize("name", JUDGES)
def test_a_judge_finds_nothing_in_the_good_journal(name: str) -> None:
    assert not JUDGES[name]("good")


def test_the_good_journal_has_what_the_judges_look_at() -> None:
    assert {each.party for each in pushed("good")} >= {"A", "B", "V1", "V2", "V4"}
    assert len(failing("good", "V4").gaps) >= 3
    assert len(_sent("good")) > 20
    assert any(len(each.exchanges) == 2 for each in tries("good", "V1")), "no attempt fell back to the legacy route"


def test_every_recorded_journal_is_judged() -> None:
    assert set(RECORDED) == {"good", *JUDGES}
    assert {each.stem for each in path("good").parent.glob("*.jsonl")} == set(RECORDED)


def test_what_was_altered_is_said_in_words() -> None:
    told = sameness.alteration(tries("queues-keep-event-ids-only", "V1"))
    assert told is not None
    assert told[0].endswith("without its content: redacted")
    told = sameness.alteration(tries("queues-are-flushed-into-retries", "V2"))
    assert told is not None
    assert "events added" in told[0]
    assert str(failing("backoff-is-constant", "V4")).endswith("the gaps are all the same")
    assert str(failing("good", "V4")).endswith("the gaps double")
