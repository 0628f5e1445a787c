"""The form of error answers of the client-server API (CS: Standard error response)."""

from __future__ import annotations

import re

from conformance.wire.exchange import Direction, Exchange, NotJson

#: The client-server API proper. What stands elsewhere under /_matrix is another API's.
_CLIENT_SERVER = re.compile(r"/_matrix/(?:client|media)/")


def is_error(exchange: Exchange) -> bool:
    """Whether an exchange is an error answer of the client-server API that has to have the standard form.

    The 401 of user-interactive authentication has a form of its own; that of an unknown protocol is judged by 3PN-07.
    """
    if exchange.direction is not Direction.TO_HOMESERVER or exchange.status is None or exchange.failure is not None:
        return False
    if not 400 <= exchange.status < 600 or exchange.method == "HEAD" or not _CLIENT_SERVER.search(exchange.raw_path):
        return False
    if "/thirdparty/protocol/" in exchange.raw_path:
        return False
    return not (exchange.status == 401 and _is_interactive(exchange))


def _is_interactive(exchange: Exchange) -> bool:
    try:
        body = exchange.response_json
    except NotJson:
        return False
    return isinstance(body, dict) and ("flows" in body or "session" in body)


def problem(exchange: Exchange) -> str | None:
    """Why an error answer is no JSON object with a string `errcode`; None when it is one."""
    try:
        body = exchange.response_json
    except NotJson:
        kind = next(iter(exchange.response_header("Content-Type")), "nothing said about its type")
        return f"{exchange.status} with a body that is not JSON ({kind})"
    if not isinstance(body, dict):
        return f"{exchange.status} with a body that is a JSON {type(body).__name__}"
    if not isinstance(body.get("errcode"), str):
        return f"{exchange.status} {'with an errcode that is no string' if 'errcode' in body else 'without an errcode'}"
    if "error" in body and not isinstance(body["error"], str):
        return f"{exchange.status} {body['errcode']} with an error that is no string"
    return None


def lacks_error(exchange: Exchange) -> bool:
    """Whether an error answer of the right form has no `error` text."""
    return problem(exchange) is None and "error" not in exchange.response_json
