"""The client-server client: what it sends, what it makes of answers, and of their absence."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request
from werkzeug import Response as Reply

from conformance.homeserver import client as client_module
from conformance.homeserver.client import Client, NoAnswer, segment
from conformance.homeserver.process import free_port
from conformance.verdict import Inconclusive
from conformance.wire.exchange import Phase
from conformance.wire.journal import Journal


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def client(httpserver: HTTPServer, journal: Journal) -> Iterator[Client]:
    made = Client(httpserver.url_for(""), journal)
    yield made
    made.close()


@contextlib.contextmanager
def raw_server(talk: Callable[[socket.socket], None]) -> Iterator[tuple[str, list[bytes]]]:
    """A server that lets `talk` answer each connection's first request; its URL and the requests as they came."""
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        received.append(connection.recv(65536))
                        talk(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", received
        listener.shutdown(socket.SHUT_RDWR)


def answered(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")


def limited_then_fine(headers: dict[str, str], body: object) -> Callable[[Request], Reply]:
    """A handler that answers 429 twice, then 200."""
    calls = itertools.count()

    def handle(_: Request) -> Reply:
        if next(calls) < 2:
            return Reply(json.dumps(body), 429, {"Content-Type": "application/json", **headers})
        return Reply("{}", 200, {"Content-Type": "application/json"})

    return handle


def test_a_call_and_its_answer_are_one_finished_exchange(
    client: Client, journal: Journal, httpserver: HTTPServer
) -> None:
    httpserver.expect_request("/_matrix/x", method="PUT").respond_with_json({"errcode": "M_NO"}, status=403)
    answer = client.call("PUT", "/_matrix/x", party="H", token="tok", query={"a": "b c"}, json={"ü": 1})
    (exchange,) = journal
    assert answer.exchange is exchange
    assert (exchange.party, exchange.method, exchange.target) == ("H", "PUT", "/_matrix/x?a=b+c")
    assert exchange.request_header("authorization") == ["Bearer tok"]
    assert exchange.request_body == '{"ü": 1}'.encode()
    assert (exchange.phase, exchange.status, exchange.failure) == (Phase.DONE, 403, None)
    assert exchange.seconds is not None
    assert exchange.seconds >= 0
    assert str(answer) == "403 M_NO"
    assert (answer.ok, answer.refused, answer.errcode) == (False, True, "M_NO")
    assert "GMT" in str(answer.date)


@pytest.mark.parametrize("body", ["", "no json", "[1]", '"text"', "\xff"])
def test_a_body_that_is_no_object_reads_as_an_empty_one(client: Client, httpserver: HTTPServer, body: str) -> None:
    httpserver.expect_request("/x").respond_with_data(body.encode("latin-1"))
    answer = client.call("GET", "/x", party="H")
    assert answer.json == {}
    assert answer.errcode is None
    assert str(answer) == "200"
    assert answer.value == ([1] if body == "[1]" else "text" if body == '"text"' else None)


def test_an_errcode_that_is_no_string_is_none(client: Client, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/x").respond_with_json({"errcode": 7}, status=400)
    assert client.call("GET", "/x", party="H").errcode is None


def test_a_redirect_is_an_answer_and_not_followed(client: Client, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/x").respond_with_data("", status=302, headers={"Location": "/elsewhere"})
    assert client.call("GET", "/x", party="H").status == 302
    assert len(httpserver.log) == 1


@pytest.mark.parametrize(
    "target",
    [
        "/_matrix/client/v3/directory/room/%23a%2Fb%3Fc%25d%3Ahs.test",
        "/_matrix/client/v3/profile/@a:hs.test",
        "/a/../b/./c",
        "/a//b//",
        "/%2E%2E/a",
        "/a;b=c,d+e!$&'()*",
        "/a?user_id=%40a%3Ahs&x=a+b&x=&y",
        "/a%3a?user_id=%40a%3ahs&x=%c3%a4",
    ],
)
def test_targets_go_out_as_they_are_written(journal: Journal, target: str) -> None:
    with raw_server(answered) as (url, received):
        path, _, query = target.partition("?")
        Client(url, journal).call("GET", path, party="H", query=query or None)
    assert received[0].split()[1].decode() == target
    assert next(iter(journal)).target == target


def test_a_homeserver_below_a_path_is_asked_there(httpserver: HTTPServer, journal: Journal) -> None:
    httpserver.expect_request("/below/_matrix/x").respond_with_json({})
    assert Client(httpserver.url_for("/below/"), journal).call("GET", "/_matrix/x", party="H").ok
    assert next(iter(journal)).target == "/below/_matrix/x"


def test_proxies_and_netrc_of_this_machine_are_ignored(
    client: Client, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password secret\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(netrc))
    httpserver.expect_request("/x").respond_with_json({})
    assert client.call("GET", "/x", party="H").ok
    assert "Authorization" not in httpserver.log[0][0].headers


def test_connections_are_used_again(journal: Journal) -> None:
    accepted = []

    def talk(connection: socket.socket) -> None:
        accepted.append(connection)
        for _ in range(2):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n")
        connection.recv(65536)
        answered(connection)

    with raw_server(talk) as (url, _):
        client = Client(url, journal)
        for _ in range(4):
            assert client.call("GET", "/x", party="H").value == {}
    assert len(accepted) == 1


def test_compressed_answers_are_unpacked(client: Client, httpserver: HTTPServer) -> None:
    import gzip

    packed = gzip.compress(json.dumps({"long": "x" * 200_000}).encode())
    httpserver.expect_request("/x").respond_with_data(packed, headers={"Content-Encoding": "gzip"})
    assert client.call("GET", "/x", party="H").json == {"long": "x" * 200_000}


@pytest.mark.parametrize(
    ("headers", "body", "least"),
    [
        ({}, {"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 120}, 0.24),
        ({"Retry-After": "0"}, {"errcode": "M_LIMIT_EXCEEDED"}, 0.0),
        ({}, {"retry_after_ms": -5}, 0.0),
    ],
)
def test_a_rate_limit_is_waited_out_as_it_tells(
    client: Client, journal: Journal, httpserver: HTTPServer, headers: dict[str, str], body: object, least: float
) -> None:
    httpserver.expect_request("/x").respond_with_handler(limited_then_fine(headers, body))
    began = time.monotonic()
    assert client.call("POST", "/x", party="H", json={}).status == 200
    assert time.monotonic() - began >= least
    assert [exchange.status for exchange in journal] == [429, 429, 200]


@pytest.mark.parametrize("told", ['"soon"', "NaN", "null", "-Infinity"])
def test_a_rate_limit_that_tells_nonsense_is_waited_out_for_half_a_second(
    client: Client, httpserver: HTTPServer, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    calls = itertools.count()
    body = f'{{"retry_after_ms": {told}}}'
    httpserver.expect_request("/x").respond_with_handler(
        lambda _: Reply(body, 200 if next(calls) else 429, {"Retry-After": "²"})
    )
    assert client.call("GET", "/x", party="H").status == 200
    assert waits == [0.5]


def test_a_rate_limit_beyond_all_patience_decides_nothing(client: Client, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/x").respond_with_json({"retry_after_ms": 10_000_000}, status=429)
    with pytest.raises(Inconclusive, match="limits the rate of GET /x, for 10000 s now"):
        client.call("GET", "/x", party="H")
    assert len(httpserver.log) == 1


def test_a_rate_limit_is_returned_at_once_when_it_is_what_is_judged(client: Client, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/x").respond_with_json({"retry_after_ms": 1}, status=429)
    assert client.call("GET", "/x", party="H", obey_limits=False).status == 429
    assert len(httpserver.log) == 1


def test_a_refused_connection_is_no_answer(journal: Journal) -> None:
    with pytest.raises(NoAnswer, match="GET /x: the connection was refused"):
        Client(f"http://127.0.0.1:{free_port()}", journal).call("GET", "/x", party="H")
    (exchange,) = journal
    assert (exchange.phase, exchange.status, exchange.failure) == (Phase.DONE, None, "the connection was refused")


def silence(connection: socket.socket) -> None:
    connection.recv(1)


def trickle(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n")
    with contextlib.suppress(OSError):
        for _ in range(100):
            connection.sendall(b" ")
            time.sleep(0.05)


def trickle_chunks(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    with contextlib.suppress(OSError):
        for _ in range(100):
            connection.sendall(b"1\r\n \r\n")
            time.sleep(0.05)


def stop_in_the_middle(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n{")
    connection.recv(1)


@pytest.mark.parametrize("talk", [silence, trickle, trickle_chunks, stop_in_the_middle])
def test_an_answer_that_is_not_complete_in_time_is_no_answer(
    journal: Journal, talk: Callable[[socket.socket], None]
) -> None:
    began = time.monotonic()
    with raw_server(talk) as (url, _), pytest.raises(NoAnswer, match=r"no answer within 0\.3 s"):
        Client(url, journal).call("GET", "/x", party="H", timeout=0.3)
    assert 0.3 <= time.monotonic() - began < 2


def test_an_answer_without_end_is_given_up(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "ANSWER_CAP", 100_000)

    def flood(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(b"x" * 65536)

    with raw_server(flood) as (url, _), pytest.raises(NoAnswer):
        Client(url, journal).call("GET", "/x", party="H")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "the connection was closed without an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no valid HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}", "no valid HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "no valid HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", "no valid HTTP answer"),
    ],
)
def test_what_is_no_complete_http_answer_is_no_answer(journal: Journal, answer: bytes, words: str) -> None:
    with raw_server(lambda connection: connection.sendall(answer)) as (url, _), pytest.raises(NoAnswer, match=words):
        Client(url, journal).call("GET", "/x", party="H", timeout=5)


def test_a_segment_has_no_character_that_means_anything_in_a_path() -> None:
    assert segment("#a/b?c%d é:hs") == "%23a%2Fb%3Fc%25d%20%C3%A9%3Ahs"
