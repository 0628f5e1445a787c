"""The fake appservices' HTTP endpoint, seen from a client's side of the wire."""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import requests

from conformance.appservice import connection as connection_module
from conformance.appservice import endpoint as endpoint_module
from conformance.appservice import script
from conformance.appservice.connection import GONE, INCOMPLETE, MAX_HEAD, STOPPED
from conformance.appservice.endpoint import Endpoint, Listener
from conformance.appservice.script import Answer, Ending, Fault, Hold, Reply, always, answer
from conformance.wire.exchange import Exchange, Phase
from conformance.wire.journal import HarnessFailure, Journal

PATIENCE = 10.0
GET = b"GET /_matrix/app/v1/users/%40a%2Fb:hs?x=%20y HTTP/1.1\r\nHost: as\r\n\r\n"


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def endpoint(journal: Journal) -> Iterator[Endpoint]:
    with Endpoint(journal) as endpoint:
        yield endpoint


Serve = Callable[..., Listener]


@pytest.fixture
def serve(endpoint: Endpoint) -> Serve:
    """Have a listener answer with one reply, or by a script."""

    def serve(reply: Reply | script.Script = Answer()) -> Listener:  # noqa: B008 (it is frozen)
        responder = always(reply) if isinstance(reply, Answer | Fault) else reply
        return endpoint.listen("A", "127.0.0.1", 0, responder)

    return serve


class Wire:
    """A raw client connection."""

    def __init__(self, listener: Listener, data: bytes = b"") -> None:
        self.sock = socket.create_connection((listener.host, listener.port), timeout=PATIENCE)
        self.buffer = b""
        try:
            self.sock.sendall(data)
        except OSError:
            self.sock.close()
            raise

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def _fill(self) -> None:
        data = self.sock.recv(65536)
        assert data, f"closed after {self.buffer!r}"
        self.buffer += data

    def head(self) -> str:
        while b"\r\n\r\n" not in self.buffer:
            self._fill()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        return head.decode()

    def response(self) -> tuple[int, str, bytes]:
        """Status, head and body of the next response."""
        head = self.head()
        length = next((int(line[15:]) for line in head.split("\r\n") if line.startswith("Content-Length:")), 0)
        body = bytearray(self.buffer)
        while len(body) < length:
            body += self.sock.recv(1_000_000) or b"closed" * length
        self.buffer = bytes(body[length:])
        return int(head.split()[1]), head, bytes(body[:length])

    def rest(self) -> tuple[bytes, Ending]:
        """What else comes, and whether the end is FIN or RST."""
        data = self.buffer
        try:
            while more := self.sock.recv(65536):
                data += more
        except ConnectionResetError:
            return data, Ending.RST
        return data, Ending.FIN

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def put(body: bytes, *headers: str, version: str = "1.1") -> bytes:
    lines = [f"PUT /_matrix/app/v1/transactions/1 HTTP/{version}", "Host: as", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def reached(journal: Journal, phase: Phase, count: int = 1) -> list[Exchange]:
    """The exchanges in a phase, as soon as there are so many."""

    def probe(_: object) -> list[Exchange] | None:
        there = journal.since(0, lambda exchange: exchange.phase is phase)
        return there if len(there) >= count else None

    there = journal.wait_until(probe, 0, PATIENCE)
    assert there is not None, f"of {count} only these were {phase}: {[str(e) for e in journal]}"
    return there


def done(journal: Journal) -> Exchange:
    """The only exchange, when it is done."""
    (exchange,) = reached(journal, Phase.DONE)
    return exchange


def can_connect(listener: Listener) -> bool:
    try:
        socket.create_connection((listener.host, listener.port), timeout=PATIENCE).close()
    except ConnectionRefusedError:
        return False
    return True


# ------------------------------------------------------------------------- requests


def test_a_request_is_recorded_as_it_stood_on_the_wire(serve: Serve, journal: Journal) -> None:
    request = (
        b"PUT /_matrix/app/v1/transactions/a%2Fb?access_token=x&y=%20 HTTP/1.1\r\nhOsT: as\r\n"
        b"Authorization: Bearer one\r\nX-Other: \xe9\r\nauthorization: Bearer two\r\nContent-Length: 13\r\n\r\n"
    )
    with Wire(serve(answer(200, {"a": 1})), request + b'{"events":[]}') as wire:
        assert wire.response()[0] == 200
    exchange = done(journal)
    assert (exchange.party, exchange.method) == ("A", "PUT")
    assert exchange.target == "/_matrix/app/v1/transactions/a%2Fb?access_token=x&y=%20"
    assert exchange.raw_head == request
    assert exchange.request_body == b'{"events":[]}'
    assert exchange.request_headers == (
        ("hOsT", "as"),
        ("Authorization", "Bearer one"),
        ("X-Other", "\xe9"),
        ("authorization", "Bearer two"),
        ("Content-Length", "13"),
    )
    assert exchange.request_header("AUTHORIZATION") == ["Bearer one", "Bearer two"]
    assert exchange.status == 200
    assert exchange.response_json == {"a": 1}
    assert exchange.response_header("content-length") == ["8"]
    assert exchange.failure is None


def test_the_moments_of_an_exchange_are_in_order(serve: Serve, journal: Journal) -> None:
    listener = serve()
    before = time.monotonic()
    with Wire(listener, put(b"{}")) as wire:
        wire.response()
        after = time.monotonic()
    exchange = done(journal)
    assert exchange.received is not None
    assert exchange.answer_from is not None
    assert exchange.answer_until is not None
    assert before - 0.001 <= exchange.started <= exchange.received <= exchange.answer_from <= exchange.answer_until
    assert exchange.answer_from <= after


def test_a_request_is_in_the_journal_before_its_body_is_complete(serve: Serve, journal: Journal) -> None:
    with Wire(serve(), put(b'{"a":1}')[:-4]) as wire:
        (exchange,) = reached(journal, Phase.ARRIVING)
        assert exchange.target == "/_matrix/app/v1/transactions/1"
        assert exchange.received is None
        now = time.monotonic()
        wire.send(b'":1}')
        wire.response()
    assert done(journal) is exchange
    assert exchange.request_json == {"a": 1}
    assert exchange.started < now <= (exchange.received or 0) + 0.001


def test_a_request_that_waits_for_its_answer_is_pending_in_the_journal(serve: Serve, journal: Journal) -> None:
    hold = Hold()
    with Wire(serve(Answer(hold=hold)), put(b"{}")) as wire:
        (exchange,) = reached(journal, Phase.PENDING)
        assert exchange.request_json == {}
        assert exchange.answer_from is None
        hold.release()
        wire.response()


def test_a_chunked_body_is_put_together(serve: Serve, journal: Journal) -> None:
    head = b"PUT /t HTTP/1.1\r\nHost: as\r\nTransfer-Encoding: chunked\r\n\r\n"
    with Wire(serve(), head + b'6\r\n{"a":1\r\n') as wire:
        reached(journal, Phase.ARRIVING)
        wire.send(b"1\r\n}\r\n0\r\nTrailer: x\r\n\r\n" + GET)
        assert wire.response()[0] == 200
        assert wire.response()[0] == 200
    first, second = reached(journal, Phase.DONE, 2)
    assert first.request_json == {"a": 1}
    assert first.raw_head == head
    assert second.raw_head == GET


def test_pipelined_requests_are_answered_in_order(serve: Serve, journal: Journal) -> None:
    hold = Hold()
    scripts = {"1": Answer(body=b"first", hold=hold), "2": Answer(body=b"second"), "3": Answer(body=b"third")}
    listener = serve(lambda exchange: scripts[exchange.path[1:]])
    one, two, three = (put(b"{%d}" % n).replace(b"_matrix/app/v1/transactions/1", b"%d" % n) for n in (1, 2, 3))
    with Wire(listener, one + two + three[:-1]) as wire:
        reached(journal, Phase.PENDING)
        assert len(journal) == 1
        hold.release()
        assert [wire.response()[2] for _ in range(2)] == [b"first", b"second"]
        wire.send(three[-1:])
        assert wire.response()[2] == b"third"
    exchanges = reached(journal, Phase.DONE, 3)
    assert [exchange.request_body for exchange in exchanges] == [b"{1}", b"{2}", b"{3}"]
    assert exchanges[0].started <= exchanges[1].started <= exchanges[2].started


def test_a_client_that_expects_100_continue_is_told_to_go_on(serve: Serve, journal: Journal) -> None:
    request = put(b'{"a":1}', "Expect: 100-continue")
    with Wire(serve(), request[:-7]) as wire:
        assert wire.head() == "HTTP/1.1 100 Continue"
        assert journal.since()[0].phase is Phase.ARRIVING
        wire.send(request[-7:])
        assert wire.response()[0] == 200
    assert done(journal).request_json == {"a": 1}


def test_a_body_that_comes_without_waiting_needs_no_100_continue(serve: Serve) -> None:
    with Wire(serve(), put(b"{}", "Expect: 100-continue")) as wire:
        assert wire.response()[0] == 200


def test_http_1_0_is_answered_and_closed(serve: Serve, journal: Journal) -> None:
    with Wire(serve(), b"GET /old HTTP/1.0\r\n\r\n") as wire:
        status, head, _ = wire.response()
        assert status == 200
        assert "Connection: close" in head
        assert wire.rest() == (b"", Ending.FIN)
    assert done(journal).failure is None


def test_blank_lines_between_requests_are_ignored(serve: Serve, journal: Journal) -> None:
    with Wire(serve(), b"\r\n" + GET + b"\r\n\r\n") as wire:
        wire.response()
        wire.send(b"\r\n" + GET)
        wire.response()
    assert [exchange.raw_head for exchange in reached(journal, Phase.DONE, 2)] == [GET, GET]


def test_a_head_request_gets_the_length_but_not_the_body(serve: Serve) -> None:
    with Wire(serve(), GET.replace(b"GET", b"HEAD") + GET) as wire:
        assert "Content-Length: 2" in wire.head()
        assert wire.response()[2] == b"{}"


def test_a_large_body_arrives_whole(serve: Serve, journal: Journal) -> None:
    body = json.dumps({"events": ["x" * 1000] * 3000}).encode()
    listener = serve(Answer(body=body))
    response = requests.put(f"http://127.0.0.1:{listener.port}/t", data=body, timeout=PATIENCE)
    assert response.content == body
    assert done(journal).request_body == body


def test_requests_that_are_no_http_are_recorded_and_refused(serve: Serve, journal: Journal) -> None:
    cases = [
        (b"\x16\x03\x01\x02 hello", "?", "?"),
        (b"nonsense\r\n\r\n", "?", "?"),
        (b"GET /caf\xe9 HTTP/1.1\r\nHost: as\r\n\r\n", "GET", "/caf\xe9"),
        (b"PUT /no-host HTTP/1.1\r\nContent-Length: 1\r\n\r\n", "PUT", "/no-host"),
    ]
    for data, method, target in cases:
        with Wire(serve(), data) as wire:
            assert wire.response()[0] == 400
            assert wire.rest() == (b"", Ending.FIN)
        exchange = reached(journal, Phase.DONE, len(journal))[-1]
        assert (exchange.method, exchange.target, exchange.raw_head) == (method, target, data)
        assert exchange.status == 400
        assert (exchange.failure or "").startswith("malformed request: ")
    assert journal.since()[3].request_header("content-length") == ["1"]


def test_a_malformed_body_is_recorded_with_its_head(serve: Serve, journal: Journal) -> None:
    with Wire(serve(), b"PUT /t HTTP/1.1\r\nHost: as\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n") as wire:
        assert wire.response()[0] == 400
    exchange = done(journal)
    assert (exchange.target, exchange.request_body, exchange.received) == ("/t", b"abc", None)
    assert "malformed request" in (exchange.failure or "")


def test_an_unsupported_transfer_encoding_is_answered_501(serve: Serve, journal: Journal) -> None:
    with Wire(serve(), b"PUT /t HTTP/1.1\r\nHost: as\r\nTransfer-Encoding: gzip, chunked\r\n\r\n") as wire:
        assert wire.response()[0] == 501
    assert done(journal).target == "/t"


def test_a_head_that_is_too_large_is_recorded_and_refused(serve: Serve, journal: Journal) -> None:
    for end in (b"", b"\r\n\r\n"):
        with Wire(serve()) as wire:
            wire.send(b"GET /big HTTP/1.1\r\nHost: as\r\nX: " + b"x" * (MAX_HEAD + 100) + end)
            assert wire.response()[0] == 431
        exchange = reached(journal, Phase.DONE, len(journal))[-1]
        assert (exchange.target, exchange.status) == ("/big", 431)
        assert exchange.failure
        assert len(exchange.raw_head) > MAX_HEAD


def test_a_body_that_is_too_large_is_recorded_and_refused(endpoint: Endpoint, serve: Serve, journal: Journal) -> None:
    endpoint.max_body = 1000
    chunked = b"PUT /t HTTP/1.1\r\nHost: as\r\nTransfer-Encoding: chunked\r\n\r\n"
    for data in (
        put(b"x" * 1001, "Expect: 100-continue"),
        chunked + b"257\r\n" + b"x" * 599 + b"\r\n257\r\n" + b"x" * 599,
    ):
        with Wire(serve(), data) as wire:
            status, _, body = wire.response()
            assert (status, json.loads(body)["errcode"]) == (413, "M_TOO_LARGE")
            assert wire.rest() == (b"", Ending.FIN)
        exchange = reached(journal, Phase.DONE, len(journal))[-1]
        assert (exchange.status, exchange.failure) == (413, "request body larger than 1000 bytes")
    with Wire(serve(), put(b"x" * 1000)) as wire:
        assert wire.response()[0] == 200


def test_a_client_that_goes_on_sending_can_read_the_refusal(endpoint: Endpoint, serve: Serve) -> None:
    endpoint.max_body = 1000
    with Wire(serve(), put(b"x" * 5_000_000)) as wire:
        assert wire.response()[0] == 413
        assert wire.rest() == (b"", Ending.FIN)


@pytest.mark.parametrize("end", ["FIN", "RST"])
def test_a_request_that_breaks_off_is_recorded(serve: Serve, journal: Journal, end: str) -> None:
    with Wire(serve(), put(b'{"a":1}')[:-3]) as wire:
        reached(journal, Phase.ARRIVING)
        wire.reset() if end == "RST" else wire.sock.close()
        exchange = done(journal)
    assert exchange.failure == INCOMPLETE
    assert (exchange.method, exchange.status, exchange.received) == ("PUT", None, None)
    assert exchange.answer_from is None


def test_a_head_that_breaks_off_is_recorded(serve: Serve, journal: Journal) -> None:
    with Wire(serve(), GET[:30]) as wire:
        wire.sock.shutdown(socket.SHUT_WR)
        exchange = done(journal)
    assert (exchange.method, exchange.target, exchange.raw_head) == ("?", "?", GET[:30])
    assert exchange.failure == INCOMPLETE


def test_a_connection_without_a_request_is_no_exchange(serve: Serve, journal: Journal) -> None:
    listener = serve()
    Wire(listener).sock.close()
    with Wire(listener, GET) as wire:
        wire.response()
    assert len(journal) == 1


# ------------------------------------------------------------------------- answers


def test_connections_are_kept_alive(serve: Serve, journal: Journal) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", serve().port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.connect()
        local = connection.sock.getsockname()
        for _ in range(3):
            connection.request("PUT", "/t", body=b"{}")
            response = connection.getresponse()
            assert response.read() == b"{}"
            assert response.getheader("Connection") is None
            assert connection.sock is not None
            assert connection.sock.getsockname() == local
    assert len(reached(journal, Phase.DONE, 3)) == 3


def test_an_answer_is_one_segment(serve: Serve) -> None:
    with Wire(serve(Answer(body=b"x" * 500)), GET) as wire:
        assert wire.sock.recv(65536).endswith(b"\r\n\r\n" + b"x" * 500)


def test_an_answer_is_not_done_before_the_client_takes_it(serve: Serve, journal: Journal) -> None:
    listener = serve(Answer(body=b"x" * 20_000_000))
    with Wire(listener, GET) as wire, Wire(listener, GET) as gone:
        assert wire.sock.recv(1) == gone.sock.recv(1) == b"H"
        assert [exchange.phase for exchange in journal] == [Phase.PENDING] * 2
        gone.sock.close()
        assert done(journal).failure == GONE
        began = time.monotonic()
        wire.buffer = b"H"
        wire.response()
    other = next(exchange for exchange in reached(journal, Phase.DONE, 2) if exchange.failure is None)
    assert other.answer_from is not None
    assert other.answer_until is not None
    assert other.answer_from < began < other.answer_until


def test_a_client_that_asks_to_close_is_closed(serve: Serve) -> None:
    with Wire(serve(), put(b"{}", "Connection: Keep-Alive, Close")) as wire:
        assert "Connection: close" in wire.response()[1]
        assert wire.rest() == (b"", Ending.FIN)


def test_an_answer_can_close_its_connection(serve: Serve) -> None:
    with Wire(serve(Answer(close=True)), GET) as wire:
        assert "Connection: close" in wire.response()[1]
        assert wire.rest() == (b"", Ending.FIN)


def test_a_listener_can_close_after_each_answer(serve: Serve) -> None:
    listener = serve()
    with Wire(listener, GET) as wire:
        assert "Connection" not in wire.response()[1]
        listener.close_each = True
        wire.send(GET)
        assert "Connection: close" in wire.response()[1]
        assert wire.rest() == (b"", Ending.FIN)


def test_the_true_length_is_always_set(serve: Serve, journal: Journal) -> None:
    with Wire(serve(Answer(body=b"four", headers=(("content-length", "99"), ("X-A", "b")))), GET + GET) as wire:
        for _ in range(2):
            _, head, body = wire.response()
            assert (body, head.lower().count("content-length")) == (b"four", 1)
            assert "X-A: b" in head
    assert reached(journal, Phase.DONE, 2)[0].response_headers == (("X-A", "b"), ("Content-Length", "4"))


def test_a_204_has_neither_body_nor_length(serve: Serve) -> None:
    with Wire(serve(Answer(204)), GET + GET) as wire:
        for _ in range(2):
            assert wire.head().startswith("HTTP/1.1 204 No Content\r\n")
        assert wire.buffer == b""


def test_a_redirect_is_an_answer(serve: Serve, journal: Journal) -> None:
    with Wire(serve(script.redirect("http://elsewhere/")), GET) as wire:
        status, head, _ = wire.response()
        assert status == 302
        assert "Location: http://elsewhere/" in head
    assert done(journal).failure is None


def test_a_delayed_answer_comes_later(serve: Serve, journal: Journal) -> None:
    with Wire(serve(Answer(delay=0.1)), GET) as wire:
        wire.response()
    exchange = done(journal)
    assert exchange.answer_from is not None
    assert exchange.answer_from - exchange.started >= 0.095


def test_a_hold_ends_by_itself_at_its_limit_after_the_delay(serve: Serve, journal: Journal) -> None:
    with Wire(serve(Answer(delay=0.05, hold=Hold(limit=0.05))), GET) as wire:
        assert wire.response()[0] == 200
    exchange = done(journal)
    assert exchange.answer_from is not None
    assert exchange.answer_from - exchange.started >= 0.095


def test_a_hold_that_was_released_before_does_not_hold(serve: Serve) -> None:
    hold = Hold()
    hold.release()
    with Wire(serve(Answer(hold=hold)), GET) as wire:
        assert wire.response()[0] == 200


def test_a_hundred_held_answers_need_one_thread_and_leave_at_the_release(serve: Serve, journal: Journal) -> None:
    hold = Hold()
    listener = serve(Answer(hold=hold))
    threads = threading.active_count()
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(listener, GET)) for _ in range(100)]
        reached(journal, Phase.PENDING, 100)
        assert threading.active_count() == threads
        before = time.monotonic()
        hold.release()
        assert [wire.response()[0] for wire in wires] == [200] * 100
        assert time.monotonic() - before < 2
    assert all((exchange.answer_from or 0) >= before for exchange in reached(journal, Phase.DONE, 100))


@pytest.mark.parametrize("end", ["FIN", "RST"])
@pytest.mark.parametrize("waiting", [Answer(hold=Hold()), Answer(delay=60), script.never_answered()])
def test_a_client_that_leaves_while_it_waits_is_noticed(
    serve: Serve, journal: Journal, waiting: Reply, end: str
) -> None:
    with Wire(serve(waiting), GET) as wire:
        reached(journal, Phase.PENDING)
        before = time.monotonic()
        wire.reset() if end == "RST" else wire.sock.close()
    exchange = done(journal)
    assert exchange.failure == GONE == "the homeserver closed the connection before the answer"
    assert (exchange.status, exchange.answer_from) == (None, None)
    assert (exchange.answer_until or 0) >= before


def test_what_was_pipelined_by_a_client_that_left_is_recorded(serve: Serve, journal: Journal) -> None:
    asked = []

    def respond(exchange: Exchange) -> Reply:
        asked.append(exchange)
        return Answer(hold=Hold())

    with Wire(serve(respond), GET + put(b"{}") + b"GET /hal"):
        reached(journal, Phase.PENDING)
    exchanges = reached(journal, Phase.DONE, 3)
    assert [exchange.failure for exchange in exchanges] == [GONE, GONE, INCOMPLETE]
    assert exchanges[1].request_body == b"{}"
    assert asked == exchanges[:1]


def test_a_released_answer_for_a_client_that_left_harms_nobody(serve: Serve, journal: Journal) -> None:
    hold = Hold()
    with Wire(serve(Answer(hold=hold)), GET):
        reached(journal, Phase.PENDING)
    done(journal)
    hold.release()
    with Wire(serve(), GET) as wire:
        assert wire.response()[0] == 200


# ------------------------------------------------------------------------- faults


FAULTS = [
    # fault, how it begins, its length, how it ends, status and failure in the journal
    (script.closed_unanswered(), b"", 0, Ending.FIN, None, "connection closed without an answer"),
    (script.reset(), b"", 0, Ending.RST, None, "connection reset without an answer"),
    (script.half_a_head(Ending.FIN), b"HTTP/1.1 200 OK\r\nConte", 40, Ending.FIN, 200,
     "connection closed before the answer was complete"),
    (script.half_a_head(Ending.RST), b"HTTP/1.1 200 OK\r\nConte", 40, Ending.RST, 200,
     "connection reset before the answer was complete"),
    (script.half_a_body(Ending.FIN), b"HTTP/1.1 200 OK\r\n", 90, Ending.FIN, 200,
     "connection closed before the answer was complete"),
    (script.half_a_body(Ending.RST), b"HTTP/1.1 200 OK\r\n", 90, Ending.RST, 200,
     "connection reset before the answer was complete"),
    (script.wrong_length(), b"HTTP/1.1 200 OK\r\n", 92, Ending.FIN, 200,
     "connection closed before the answer was complete"),
    (script.garbage(), b"\x00\xff", 20, Ending.FIN, None, "connection closed before the answer was complete"),
    (script.trickle(0.0005), b"HTTP/1.1 200 OK\r\n", 90, Ending.FIN, 200, None),
    (Fault("no length", (b"HTTP/1.0 200 OK\r\n\r\n{}",), Ending.FIN), b"HTTP/1.0", 21, Ending.FIN, 200, None),
    (Fault("no length, reset", (b"HTTP/1.0 200 OK\r\n\r\n{}",), Ending.RST), b"HTTP/1.0", 21, Ending.RST, 200,
     "connection reset before the answer was complete"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "start", "length", "ending", "status", "failure"), FAULTS, ids=lambda v: getattr(v, "name", "")
)
def test_a_fault_looks_as_meant_to_the_client_and_to_the_journal(
    serve: Serve, journal: Journal, fault: Fault, start: bytes, length: int, ending: Ending, status: int | None,
    failure: str | None,
) -> None:  # fmt: skip
    with Wire(serve(fault), put(b"{}")) as wire:
        data, end = wire.rest()
    assert data.startswith(start)
    assert len(data) >= length
    assert end is ending
    exchange = done(journal)
    assert (exchange.status, exchange.failure) == (status, failure)
    assert exchange.notes == (f"fault: {fault.name}",)
    assert exchange.answer_from is not None
    assert exchange.answer_until is not None
    assert exchange.received is not None
    assert exchange.received <= exchange.answer_from <= exchange.answer_until


def test_what_a_client_can_read_of_a_faulty_answer_is_recorded(serve: Serve, journal: Journal) -> None:
    with Wire(serve(script.half_a_body(Ending.FIN)), GET) as wire:
        wire.rest()
    exchange = done(journal)
    assert exchange.response_body == b"{"
    assert exchange.response_header("content-length") == ["2"]


def test_a_trickled_answer_is_valid_and_slow(serve: Serve, journal: Journal) -> None:
    response = requests.get(f"http://127.0.0.1:{serve(script.trickle(0.001)).port}/", timeout=PATIENCE)
    assert (response.status_code, response.json()) == (200, {})
    exchange = done(journal)
    assert exchange.answer_from is not None
    assert exchange.answer_until is not None
    assert exchange.answer_until - exchange.answer_from > 0.05


@pytest.mark.parametrize("fault", [script.reset(), script.half_a_head(Ending.RST), script.garbage()])
def test_a_client_may_be_faster_than_the_fault(serve: Serve, journal: Journal, fault: Fault) -> None:
    def respond(exchange: Exchange) -> Reply:
        wires[exchange.path].reset()
        return fault

    listener = serve(respond)
    wires = {f"/{n}": Wire(listener) for n in range(20)}
    for path, wire in wires.items():
        wire.send(f"GET {path} HTTP/1.1\r\nHost: as\r\n\r\n".encode())
    exchanges = reached(journal, Phase.DONE, 20)
    assert all(exchange.failure for exchange in exchanges)
    journal.check()


def test_a_client_that_leaves_during_a_fault_is_noticed(serve: Serve, journal: Journal) -> None:
    with Wire(serve(Fault("slow", (b"HTTP/1.1 200 OK\r\nA", 60.0, b": b"), Ending.FIN)), GET) as wire:
        assert wire.sock.recv(100)
    exchange = done(journal)
    assert (exchange.status, exchange.failure, exchange.notes) == (200, GONE, ("fault: slow",))


@pytest.mark.parametrize("fault", [script.half_a_head(Ending.SILENCE), script.half_a_body(Ending.SILENCE)])
def test_silence_leaves_the_connection_open_until_the_client_goes(serve: Serve, journal: Journal, fault: Fault) -> None:
    with Wire(serve(fault), GET) as wire:
        assert wire.sock.recv(1000)
        wire.sock.settimeout(0.05)
        with pytest.raises(TimeoutError):
            wire.sock.recv(1)
        (exchange,) = reached(journal, Phase.PENDING)
        assert exchange.notes == (f"fault: {fault.name}",)
    assert done(journal).failure == GONE
    assert exchange.status == 200


def test_silence_after_a_complete_answer_is_no_failure(serve: Serve, journal: Journal) -> None:
    whole = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    with Wire(serve(Fault("deaf", (whole,), Ending.SILENCE)), GET + GET) as wire:
        assert wire.sock.recv(1000) == whole
        exchange = done(journal)
        assert (exchange.status, exchange.response_body, exchange.failure) == (200, b"{}", None)
        assert len(journal) == 1  # a pipelined request is recorded when its sender has gone


# ------------------------------------------------------------------------- refusals


def test_refusing_is_in_force_when_the_call_returns_and_the_port_is_kept(serve: Serve, journal: Journal) -> None:
    listener = serve()
    port = listener.port
    for _ in range(30):
        listener.refuse()
        assert not can_connect(listener)
        listener.accept()
        assert can_connect(listener)
    assert listener.port == port
    with Wire(listener, GET) as wire:
        assert wire.response()[0] == 200
    listener.accept()
    listener.refuse()
    listener.refuse()
    assert not can_connect(listener)


def test_a_refused_port_cannot_be_had_by_choosing_a_free_one(
    endpoint: Endpoint, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = serve()
    listener.refuse()
    monkeypatch.setattr(endpoint_module, "_PORTS", range(listener.port, listener.port + 1000))
    others = [serve() for _ in range(20)]
    assert listener.port not in [other.port for other in others]
    listener.accept()
    assert can_connect(listener)


def test_refusing_closes_idle_connections(serve: Serve, journal: Journal) -> None:
    listener = serve()
    with Wire(listener) as unused, Wire(listener, GET) as used:
        used.response()
        reached(journal, Phase.DONE)
        listener.refuse()
        for wire in (unused, used):
            wire.sock.settimeout(1)
            assert wire.rest() == (b"", Ending.FIN)


def test_a_request_that_is_here_when_connects_begin_to_be_refused_is_answered(serve: Serve, journal: Journal) -> None:
    hold = Hold()
    listener = serve(Answer(hold=hold))
    request = put(b'{"a":1}')
    with Wire(listener, GET) as waiting, Wire(listener, request[:-3]) as arriving, Wire(listener, GET) as unread:
        reached(journal, Phase.PENDING)
        reached(journal, Phase.ARRIVING)
        listener.refuse()
        hold.release()
        arriving.send(request[-3:])
        for wire in (waiting, arriving, unread):
            status, head, _ = wire.response()
            assert status == 200
            assert "Connection: close" in head
            assert wire.rest() == (b"", Ending.FIN)
    assert len(reached(journal, Phase.DONE, 3)) == 3


def test_what_was_sent_before_the_refusal_is_answered_even_if_nobody_has_read_it(
    serve: Serve, journal: Journal
) -> None:
    go_on = threading.Event()

    def respond(exchange: Exchange) -> Reply:
        if exchange.method == "PUT":  # blocks the loop, so that all the others stay unread
            go_on.wait(PATIENCE)
            listener.refuse()
        return Answer()

    listener = serve(respond)
    with Wire(listener, GET) as used, Wire(listener) as unused:
        used.response()
        with Wire(listener, put(b"{}")) as blocking:
            reached(journal, Phase.PENDING)
            used.send(GET)
            with Wire(listener, GET) as new:
                go_on.set()
                for wire in (blocking, used, new):
                    assert wire.response()[0] == 200
                    assert wire.rest() == (b"", Ending.FIN)
        assert unused.rest() == (b"", Ending.FIN)
    assert len(reached(journal, Phase.DONE, 4)) == 4


def test_an_answer_that_is_leaving_when_connects_begin_to_be_refused_is_the_last(serve: Serve) -> None:
    listener = serve(Answer(body=b"x" * 20_000_000))
    with Wire(listener, GET) as wire:
        wire.buffer = wire.sock.recv(1)
        listener.refuse()
        _, head, body = wire.response()
        assert "Connection" not in head
        assert len(body) == 20_000_000
        assert wire.rest() == (b"", Ending.FIN)


def test_held_connections_do_not_keep_a_listener_from_coming_back(serve: Serve, journal: Journal) -> None:
    hold = Hold()
    listener = serve(Answer(hold=hold))
    with Wire(listener, GET) as wire:
        reached(journal, Phase.PENDING)
        listener.refuse()
        listener.accept()
        assert can_connect(listener)
        hold.release()
        assert "Connection" not in wire.response()[1]


def test_a_script_may_refuse_from_now_on(serve: Serve) -> None:
    def respond(exchange: Exchange) -> Reply:
        listener.refuse()
        return answer(503)

    listener = serve(respond)
    with Wire(listener, GET) as wire:
        assert wire.response()[0] == 503
        assert wire.rest() == (b"", Ending.FIN)
    assert not can_connect(listener)


def test_idle_connections_can_be_closed_without_refusing(serve: Serve, journal: Journal) -> None:
    hold = Hold()
    listener = serve(lambda exchange: Answer(hold=hold) if exchange.method == "PUT" else Answer())
    with Wire(listener, GET) as idle, Wire(listener, put(b"{}")) as busy:
        idle.response()
        reached(journal, Phase.DONE)
        reached(journal, Phase.PENDING)
        listener.close_idle()
        assert idle.rest() == (b"", Ending.FIN)
        hold.release()
        assert busy.response()[0] == 200
        busy.send(put(b"{}"))
        assert busy.response()[0] == 200


@pytest.mark.parametrize("ending", [Ending.FIN, Ending.RST])
def test_connections_can_be_ended_before_anything_is_read(serve: Serve, journal: Journal, ending: Ending) -> None:
    listener = serve()
    listener.on_connect = ending
    before = time.monotonic()
    for data in (b"", GET):
        try:
            with Wire(listener, data) as wire:
                seen = wire.rest()
        except (ConnectionResetError, BrokenPipeError):  # a reset can be faster than connect() and sendall()
            seen = b"", Ending.RST
        assert seen == (b"", ending)
    assert len(listener.turned_away) == 2
    assert listener.turned_away[0] >= before
    listener.on_connect = None
    with Wire(listener, GET) as wire:
        assert wire.response()[0] == 200
    assert len(journal) == 1


# ------------------------------------------------------------------------- many


def test_two_hundred_listeners_come_and_go_quickly(journal: Journal) -> None:
    before = time.monotonic()
    with Endpoint(journal) as endpoint:
        listeners = [endpoint.listen(f"A{n}", "127.0.0.1", 0, always(Answer())) for n in range(200)]
        up = time.monotonic()
        assert len({listener.port for listener in listeners}) == 200
        with Wire(listeners[150], GET) as wire:
            assert wire.response()[0] == 200
        assert done(journal).party == "A150"
        down = time.monotonic()
    assert up - before < 3.0
    assert time.monotonic() - down < 2.0
    assert not any(can_connect(listener) for listener in listeners[::50])


def sent_again(sock: socket.socket) -> int:
    """How many segments the kernel had to send again (tcpi_total_retrans)."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int(struct.unpack_from("=I", info, 100)[0])


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_three_hundred_simultaneous_connects_are_not_delayed(serve: Serve) -> None:
    listener = serve()
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(300)]
        for sock in socks:
            sock.setblocking(False)
            sock.connect_ex((listener.host, listener.port))
        for sock in socks:
            sock.settimeout(PATIENCE)
            sock.sendall(GET)  # waits for the connection
        assert all(sock.recv(1000).startswith(b"HTTP/1.1 200 OK") for sock in socks)
        # A dropped SYN is sent again, after a second.
        assert sum(sent_again(sock) for sock in socks) == 0


def test_an_address_that_cannot_be_had_is_an_os_error(endpoint: Endpoint, serve: Serve) -> None:
    with pytest.raises(OSError, match="in use"):
        endpoint.listen("B", "127.0.0.1", serve().port, always(Answer()))
    with pytest.raises(OSError, match="assign requested address"):
        endpoint.listen("B", "192.0.2.1", 0, always(Answer()))


def test_ipv6_is_served_where_there_is_any(endpoint: Endpoint) -> None:
    try:
        listener = endpoint.listen("A", "::1", 0, always(Answer()))
    except OSError:
        pytest.skip("no IPv6 here")
    with Wire(listener, GET) as wire:
        assert wire.response()[0] == 200


# ------------------------------------------------------------------------- trouble of our own


def test_a_responder_that_raises_is_remembered_and_the_client_gets_a_500(serve: Serve, journal: Journal) -> None:
    def respond(exchange: Exchange) -> Reply:
        raise LookupError("no such script")

    with Wire(serve(respond), GET) as wire:
        assert wire.response()[0] == 500
    with pytest.raises(HarnessFailure, match="no such script"):
        journal.wait_for(lambda exchange: False, 0, PATIENCE)
    with pytest.raises(HarnessFailure):
        journal.check()


@pytest.mark.parametrize(
    "respond",
    [
        lambda exchange: pytest.fail("an outcome, which is no Exception"),
        lambda exchange: None,
        lambda exchange: Answer(headers=(("X", "\u20ac"),)),
        lambda exchange: Answer(hold="no hold"),  # type: ignore[arg-type]
        lambda exchange: Fault("odd", ("no bytes",), Ending.FIN),  # type: ignore[arg-type]
    ],
)
def test_no_mistake_of_a_script_is_lost(serve: Serve, journal: Journal, respond: script.Script) -> None:
    with Wire(serve(respond), GET) as wire:
        assert wire.response()[0] == 500
    with pytest.raises(HarnessFailure):
        journal.check()


def test_an_error_of_the_server_itself_is_remembered(
    serve: Serve, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module.Connection, "_complete", lambda *_: 1 / 0)
    with Wire(serve(), GET) as wire:
        assert wire.rest()[0] == b""
    with pytest.raises(HarnessFailure, match="ZeroDivisionError"):
        journal.wait_for(lambda exchange: False, 0, PATIENCE)


def test_a_script_that_blocks_is_named_as_the_trouble(
    serve: Serve, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_module, "_PATIENCE_S", 0.05)
    go_on = threading.Event()

    def respond(exchange: Exchange) -> Reply:
        go_on.wait(PATIENCE)
        return Answer()

    listener = serve(respond)
    with Wire(listener, GET) as wire:
        reached(journal, Phase.PENDING)
        with pytest.raises(HarnessFailure, match="does a script block"):
            listener.refuse()
        go_on.set()
        wire.response()
    monkeypatch.undo()  # before the endpoint is stopped


# ------------------------------------------------------------------------- the end


def test_stopping_cuts_held_answers_and_nothing_is_sent_later(journal: Journal) -> None:
    endpoint = Endpoint(journal)
    endpoint.start()
    hold = Hold()
    held = endpoint.listen("A", "127.0.0.1", 0, always(Answer(hold=hold)))
    silent = endpoint.listen("B", "127.0.0.1", 0, always(script.half_a_head(Ending.SILENCE)))
    with Wire(held, GET) as one, Wire(silent, GET) as two, Wire(held) as idle, Wire(held, put(b"{}")[:-1]) as partial:
        reached(journal, Phase.PENDING, 2)
        reached(journal, Phase.ARRIVING)
        assert two.sock.recv(1000)
        before = time.monotonic()
        endpoint.stop()
        assert time.monotonic() - before < 1
        hold.release()
        for wire in (one, two, idle, partial):
            assert wire.rest()[0] == b""
    assert [exchange.failure for exchange in journal] == [STOPPED] * 3
    assert all(exchange.phase is Phase.DONE for exchange in journal)
    assert not can_connect(held)
    journal.check()
    assert "appservice fleet" not in [thread.name for thread in threading.enumerate()]


def test_stopping_twice_or_without_a_start_is_harmless(journal: Journal) -> None:
    Endpoint(journal).stop()
    with Endpoint(journal) as endpoint:
        listener = endpoint.listen("A", "127.0.0.1", 0, always(Answer()))
        endpoint.stop()
    with pytest.raises(RuntimeError, match="not running"):
        listener.refuse()
    journal.check()


def test_a_run_can_follow_another_on_the_same_port(journal: Journal) -> None:
    port = 0
    for _ in range(3):
        with Endpoint(journal) as endpoint:
            listener = endpoint.listen("A", "127.0.0.1", port, always(Answer(close=True)))
            port = listener.port
            with Wire(listener, GET) as wire:  # we close first, so the port has connections in TIME_WAIT
                assert wire.rest()[1] is Ending.FIN


# ------------------------------------------------------------------------- time stamps


SENDER = """
import socket, sys, time
socks = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(60)]
for sock in socks:  # a connection each, since what is read at once has one time; no waiting for answers
    time.sleep(0.003)
    sock.sendall(b"GET /%d HTTP/1.1\\r\\nHost: as\\r\\n\\r\\n" % time.monotonic_ns())
print("sent", flush=True)
sys.stdin.read()
"""


def test_arrival_times_are_right_while_this_process_computes(
    endpoint: Endpoint, serve: Serve, journal: Journal
) -> None:
    if not endpoint.kernel_stamps:
        pytest.skip(endpoint.stamp_note)
    command = [sys.executable, "-I", "-S", "-c", SENDER, str(serve().port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as sender:
        assert sender.stdout is not None
        while not select.select([sender.stdout], [], [], 0)[0]:
            for _ in range(1_000_000):  # gives the GIL away only when it must
                pass
        reached(journal, Phase.DONE, 60)
    exchanges = reached(journal, Phase.DONE, 60)
    assert all(exchange.kernel_stamp for exchange in exchanges)
    errors = [exchange.started - int(exchange.path[1:]) / 1e9 for exchange in exchanges]
    assert min(errors) > -0.0005
    assert statistics.median(errors) < 0.002


def test_without_kernel_stamps_the_times_are_our_own_and_a_sentence_says_so(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_module, "kernel_clock", lambda: (None, "None to be had."))
    with Endpoint(journal) as endpoint:
        assert not endpoint.kernel_stamps
        assert endpoint.stamp_note == "None to be had."
        before = time.monotonic()
        with Wire(endpoint.listen("A", "127.0.0.1", 0, always(Answer())), GET) as wire:
            wire.response()
        exchange = done(journal)
        assert not exchange.kernel_stamp
        assert before <= exchange.started <= time.monotonic()


def test_with_kernel_stamps_there_is_nothing_to_say(endpoint: Endpoint) -> None:
    assert endpoint.kernel_stamps == (endpoint.stamp_note == "")
