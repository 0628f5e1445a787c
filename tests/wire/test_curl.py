"""The curl line of a call repeats it."""

from __future__ import annotations

import shlex

from conformance.wire.curl import curl
from conformance.wire.exchange import Direction, Exchange
from conformance.wire.journal import Journal
from conformance.wire.redaction import Redactor


def call(method: str, target: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Exchange:
    return Journal().open(
        Direction.TO_HOMESERVER, "H", method, target, tuple((headers or {}).items()), request_body=body
    )


def test_the_line_says_method_headers_body_and_url() -> None:
    exchange = call("PUT", "/_matrix/x?a=b", {"Content-Type": "application/json"}, b'{"x": 1}')
    assert shlex.split(curl(exchange, "http://hs:8008/", Redactor())) == [
        *("curl", "-i", "-X", "PUT", "-H", "Content-Type: application/json"),
        *("--data-binary", '{"x": 1}', "http://hs:8008/_matrix/x?a=b"),
    ]


def test_what_the_shell_might_take_for_itself_is_quoted() -> None:
    line = curl(call("POST", "/x?a=$(b)&c=d", body=b"it's `that` $HOME"), "http://hs", Redactor())
    assert shlex.split(line)[-2:] == ["it's `that` $HOME", "http://hs/x?a=$(b)&c=d"]
    assert "'http://hs/x?a=$(b)&c=d'" in line


def test_no_secret_stands_in_it() -> None:
    redactor = Redactor()
    redactor.add("s3cret", "access token of H")
    exchange = call(
        "POST", "/x?access_token=s3cret", {"Authorization": "Bearer s3cret"}, b'{"password": "other", "x": "s3cret"}'
    )
    line = curl(exchange, "http://hs", redactor)
    assert "s3cret" not in line
    assert "other" not in line
    assert "Authorization: Bearer <access token of H>" in shlex.split(line)


def test_headers_that_curl_makes_itself_are_left_out() -> None:
    exchange = call("GET", "/x", {"Host": "hs", "Content-Length": "2", "X-Own": "1"})
    assert shlex.split(curl(exchange, "http://hs", Redactor()))[4:-1] == ["-H", "X-Own: 1"]


def test_a_body_that_is_not_utf8_does_not_break_it() -> None:
    assert "\\xff" in curl(call("POST", "/x", body=b"\xff"), "http://hs", Redactor())
