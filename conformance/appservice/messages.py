"""HTTP messages as bytes: answers to be sent, and what can be made of malformed requests and faulty answers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus

import h11

from conformance.appservice.script import Answer, answer
from conformance.wire.exchange import Headers

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUS_LINE = re.compile(rb"HTTP/\d\.\d (\d{3})[^\r\n]*\r?\n")


def headers_of(message: h11.Request | h11.Response) -> Headers:
    """All headers, in order and with their names as they were sent."""
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in message.headers.raw_items())


def keeps_alive(request: h11.Request) -> bool:
    """Whether the client expects the connection to stay open."""
    values = b",".join(value for name, value in request.headers if name == b"connection")
    return request.http_version >= b"1.1" and b"close" not in [token.strip() for token in values.lower().split(b",")]


def _status_line(status: int) -> str:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n"


def response(reply: Answer, method: str, close: bool) -> tuple[Headers, bytes, bytes]:
    """The headers and the body that go out for an answer, and all of its bytes."""
    headers = [(name, value) for name, value in reply.headers if name.lower() != "content-length"]
    if reply.status != 204:  # which must not have one
        headers.append(("Content-Length", str(len(reply.body))))
    if close and not any(name.lower() == "connection" for name, _ in headers):
        headers.append(("Connection", "close"))
    # Bytes that a client does not expect would be taken for the next response.
    bodiless = method == "HEAD" or reply.status in (204, 304)
    body = b"" if bodiless else reply.body
    head = "".join((_status_line(reply.status), *(f"{name}: {value}\r\n" for name, value in headers), "\r\n"))
    return tuple(headers), body, head.encode("latin-1") + body


def error_answer(status: int, problem: str) -> Answer:
    """What we answer to what no script can answer."""
    return answer(status, {"errcode": "M_TOO_LARGE" if status == 413 else "M_UNKNOWN", "error": problem}, close=True)


def content_length(request: h11.Request) -> int:
    """The announced length of the body; 0 when none is."""
    return next((int(value) for name, value in request.headers if name == b"content-length"), 0)


def guess(raw: bytes) -> tuple[str, str, Headers]:
    """Method, target and headers of something that is no proper head, as far as they can be made out."""
    lines = re.split(r"\r?\n", raw.decode("latin-1"))
    words = lines[0].split(" ")
    if len(words) < 3 or not words[-1].startswith("HTTP/"):
        return "?", "?", ()
    headers = []
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            break
        headers.append((name, value.strip()))
    return words[0], " ".join(words[1:-1]), tuple(headers)


@dataclass(frozen=True)
class Understood:
    """What a client makes of an answer."""

    status: int | None = None
    headers: Headers = ()
    body: bytes = b""
    complete: bool = False


def understand(data: bytes, method: str, closed: bool) -> Understood:
    """What a client makes of the bytes of a faulty answer, and of their end."""
    line = _STATUS_LINE.match(data)
    status = int(line[1]) if line else None
    headers: Headers = ()
    body = bytearray()
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="HEAD" if method == "HEAD" else "GET", target="/", headers=[("Host", "-")]))
    client.send(h11.EndOfMessage())
    for part in (data, b"") if closed and data else (data,):
        client.receive_data(part)
    try:
        while True:
            event = client.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
                headers = headers_of(event)
            elif isinstance(event, h11.Data):
                body += event.data
            elif not isinstance(event, h11.InformationalResponse):
                complete = isinstance(event, h11.EndOfMessage)
                return Understood(status, headers, bytes(body), complete)
    except h11.RemoteProtocolError:
        return Understood(status, headers, bytes(body), False)
