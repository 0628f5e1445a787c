"""A command line that repeats a request to the homeserver."""

from __future__ import annotations

import shlex
from urllib.parse import urljoin

from conformance.wire.exchange import Exchange
from conformance.wire.redaction import Redactor

_LEFT_OUT = {"host", "content-length", "connection", "accept-encoding", "user-agent", "accept"}


def curl(exchange: Exchange, base_url: str, redactor: Redactor) -> str:
    """The curl command for an exchange with the homeserver at `base_url`, secrets replaced."""
    words = ["curl", "-i", "-X", exchange.method]
    for name, value in redactor.headers(exchange.request_headers):
        if name.lower() not in _LEFT_OUT:
            words += ["-H", f"{name}: {value}"]
    if exchange.request_body:
        words += ["--data-binary", redactor.body(exchange.request_body)]
    # The target has the path of the base URL already.
    words.append(urljoin(base_url, "/").rstrip("/") + redactor.text(exchange.target))
    return shlex.join(words)
