from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from conformance.appservice.routes import route_of
from conformance.judges import attempts, order, sameness
from tests.judges.exchanges import event, request, transaction


def tries(*bodies: list[dict[str, Any]], txn_id: str = "1") -> list[attempts.Attempt]:
    """Attempts of one transaction with these events."""
    return [attempts.Attempt((transaction(txn_id, *body, status=500),)) for body in bodies]


events = st.lists(st.integers(0, 30), min_size=1, max_size=6, unique=True).map(
    lambda numbers: [event(f"${number}", content={"n": number}) for number in numbers]
)


@given(events, st.integers(0, 10**6))
def test_ages_may_change(before: list[dict[str, Any]], age: int) -> None:
    after = [{**each, "unsigned": {"age": age}} for each in before]
    assert sameness.alteration(tries([{**each, "unsigned": {"age": 1}} for each in before], after)) is None


@given(events, st.data())
def test_any_other_change_is_found(before: list[dict[str, Any]], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(before) - 1))
    key = data.draw(st.sampled_from(["type", "sender", "room_id", "origin_server_ts"]))
    after = [{**each, key: "another"} if number == place else each for number, each in enumerate(before)]
    told = sameness.alteration(tries(before, after))
    assert told is not None
    assert f"{before[place]['event_id']} with another {key}" in told[0]


@given(events)
def test_events_that_are_added_dropped_or_reordered_are_found(before: list[dict[str, Any]]) -> None:
    assert "1 events added" in (sameness.difference(before, [*before, event("$new")]) or "")
    assert "1 events dropped" in (sameness.difference(before, before[1:]) or "")
    if len(before) > 1:
        assert "in another order" in (sameness.difference(before, before[::-1]) or "")


def test_a_redaction_is_called_one() -> None:
    before, after = [event("$1", content={"body": "x"})], [event("$1", content={})]
    assert sameness.difference(before, after) == "$1 without its content: redacted"


def test_word_of_a_redaction_is_no_change_of_the_event() -> None:
    after = [event("$1", unsigned={"redacted_because": {}})]
    assert sameness.difference([event("$1", unsigned={})], after) is None
    assert sameness.tells_redaction(transaction("1", *after))


def test_transactions_of_other_ids_are_not_compared() -> None:
    assert sameness.alteration([*tries([event("$1")]), *tries([event("$2")], txn_id="2")]) is None


def test_a_later_event_in_a_retry_is_an_intruder_but_not_in_a_new_transaction() -> None:
    grown = tries([event("$1")], [event("$1"), event("$late")])
    found = sameness.added(grown, {"$late"})
    assert found is not None
    assert found[0] == "$late"
    fresh = [*tries([event("$1")]), *tries([event("$late")], [event("$late")], txn_id="2")]
    assert sameness.added(fresh, {"$late"}) is None


def test_a_fallback_belongs_to_its_attempt() -> None:
    first, legacy, again = (
        request("/_matrix/app/v1/transactions/1", {}, status=500, started=10.0),
        request("/transactions/1", {}, status=500, started=10.2),
        request("/_matrix/app/v1/transactions/1", {}, started=12.0),
    )
    found = attempts.attempts([first, legacy, again], lambda each: route_of(each, ""), 3.0)
    assert [each.exchanges for each in found] == [(first, legacy), (again,)]
    assert [each.acknowledged for each in found] == [False, True]


def test_a_legacy_request_of_another_time_or_id_is_an_attempt_of_its_own() -> None:
    first = request("/_matrix/app/v1/transactions/1", {}, status=500, started=10.0)
    late, other = request("/transactions/1", {}, started=20.0), request("/transactions/2", {}, started=10.2)
    for each in (late, other):
        assert len(attempts.attempts([first, each], lambda one: route_of(one, ""), 3.0)) == 2


def test_two_open_transactions_overlap_and_a_retry_does_not() -> None:
    first = request("/_matrix/app/v1/transactions/1", {}, started=10.0)
    assert attempts.overlap([first, request("/_matrix/app/v1/transactions/2", {}, started=10.05)])
    assert not attempts.overlap([first, request("/_matrix/app/v1/transactions/2", {}, started=10.2)])
    assert not attempts.overlap([first, request("/_matrix/app/v1/transactions/1", {}, started=10.05)])
    hung = request("/_matrix/app/v1/transactions/3", {}, started=10.3, status=None)
    assert attempts.overlap([hung, request("/_matrix/app/v1/transactions/4", {}, started=99.0)])


@given(st.lists(st.integers(), unique=True, max_size=20), st.data())
def test_the_first_inversion_is_found_wherever_it_is(numbers: list[int], data: st.DataObject) -> None:
    sent = [f"${each}" for each in numbers]
    assert order.first_inversion(sent, [*sent, "$stranger"]) is None
    arrived = data.draw(st.permutations(sent))
    found = order.first_inversion(sent, arrived)
    assert (found is None) == (arrived == sent)
    if found is not None:
        earlier, later = found
        assert sent.index(earlier) < sent.index(later)
        assert arrived.index(earlier) > arrived.index(later)
        assert order.in_words(sent, arrived, found).startswith(f"number {sent.index(earlier) + 1} of")
