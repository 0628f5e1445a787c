from __future__ import annotations

import pytest

from conformance.appservice.routes import route_of
from conformance.judges import transactions
from conformance.wire.exchange import Headers
from tests.judges.exchanges import event, request, transaction


@pytest.mark.parametrize(
    ("target", "body", "is_one"),
    [
        ("/_matrix/app/v1/transactions/1", {"events": []}, True),
        ("/transactions/1", {}, True),
        ("/_matrix/app/v2/transactions/1", {"events": []}, True),
        ("/_matrix/app/v1/transactions/", {"events": []}, True),
        ("/_matrix/app/v1/ping", {}, False),
        ("/elsewhere", {}, False),
    ],
)
def test_transactions_are_known_by_path_or_body(target: str, body: object, is_one: bool) -> None:
    exchange = request(target, body)
    assert transactions.is_transaction(exchange, route_of(exchange, "")) is is_one


@pytest.mark.parametrize(
    "target", ["/_matrix/app/v1/transactions/a%2Fb", "/as//_matrix/app/v1/transactions/1", "/transactions/1"]
)
def test_request_lines_that_pass(target: str) -> None:
    exchange = request(target)
    assert transactions.request_line_problem(exchange, route_of(exchange, "")) is None


@pytest.mark.parametrize("target", ["/_matrix/app/v1/transactions/", "/_matrix/app/v2/transactions/1"])
def test_request_lines_that_do_not(target: str) -> None:
    exchange = request(target)
    assert transactions.request_line_problem(exchange, route_of(exchange, ""))


def test_a_post_is_no_put() -> None:
    exchange = request(method="POST")
    assert transactions.request_line_problem(exchange, route_of(exchange, "")) == "the method POST"


@pytest.mark.parametrize("segment", ["1", "a%2Fb", "hq:1@x;y=z,~.-_!$&'()*+", "%C3%BC", "1?access_token=x"])
def test_segments_that_pass(segment: str) -> None:
    assert transactions.segment_problem(request(f"/_matrix/app/v1/transactions/{segment}")) is None


@pytest.mark.parametrize("segment", ["a/b", "100%", "%zz", "ü", "a|b", "1/", "1?attempt=2"])
def test_segments_that_do_not(segment: str) -> None:
    assert transactions.segment_problem(request(f"/_matrix/app/v1/transactions/{segment}"))


@pytest.mark.parametrize("declared", ["application/json", "Application/JSON; charset=utf-8"])
def test_media_types_that_pass(declared: str) -> None:
    assert transactions.media_type_problem(request(headers=(("content-type", declared),))) is None


@pytest.mark.parametrize("headers", [(), (("Content-Type", "text/json"),), (("Content-Type", ""),)])
def test_media_types_that_do_not(headers: Headers) -> None:
    assert transactions.media_type_problem(request(headers=headers))


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b'{"a": "\xfc"}', b"\xff\xfe{\x00}\x00"])
def test_bodies_that_are_no_objects(body: bytes) -> None:
    assert transactions.body_problem(request(body=body))


def test_ids_may_not_come_back_with_other_events() -> None:
    first, other = transaction("1", event("$1")), transaction("1", event("$2"))
    assert transactions.reused_id([first, other]) == (first, other)
    assert transactions.reused_id([first, transaction("%31", event("$1"), event("$2"))])


def test_what_is_no_reuse() -> None:
    aged = [transaction("1", event("$1", unsigned={"age": age})) for age in (1, 2)]
    assert transactions.reused_id(aged) is None
    refused = [transaction("1", event("$1"), status=500), transaction("1", event("$2"))]
    assert transactions.reused_id(refused) is None
    together = [transaction("1", event("$1"), started=5.0), transaction("1", event("$2"), started=5.05)]
    assert transactions.reused_id(together) is None
    assert transactions.reused_id([transaction("1", event("$1")), transaction("2", event("$2"))]) is None


def test_duplicates() -> None:
    once, again = transaction("1", event("$1")), transaction("2", event("$2"), event("$1"))
    assert transactions.delivered_twice([once, again]) == ("$1", once, again)
    assert transactions.delivered_twice([transaction("3", event("$1"), event("$1"))])
    assert transactions.delivered_twice([once, transaction("1", event("$1"))]) is None
    assert transactions.delivered_twice([once, transaction("2", event("$2"), "rubbish", {"event_id": 1})]) is None


def test_a_transaction_carries_its_events_and_not_those_that_they_name() -> None:
    exchange = transaction("1", event("$two", unsigned={"replaces_state": "$one"}))
    assert transactions.carries(exchange, "$two")
    assert not transactions.carries(exchange, "$one")


@pytest.mark.parametrize("body", [b'{"events": [{"event_id": "$o', {"events": [{"id": "$one"}]}, {"events": "$one"}])
def test_an_event_is_found_where_the_events_cannot_be_read(body: object) -> None:
    assert transactions.carries(request(body=body), "$one") is (body != b'{"events": [{"event_id": "$o')


def test_an_escaped_event_id_is_found() -> None:
    assert transactions.carries(request(body=b'{"events": [{"event_id": "\\u0024one\\/two"}]}'), "$one/two")
