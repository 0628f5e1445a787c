"""The journal as a file: one JSON object a line, secrets replaced, bodies capped (schema `journal-entry`)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from conformance.wire.exchange import Direction, Exchange, Headers, Phase
from conformance.wire.redaction import Redactor

#: Characters of a body that are kept; what is longer is cut, its true length stands in `body_bytes`.
BODY_CAP = 64 * 1024


def entry(exchange: Exchange, began: float, redactor: Redactor) -> dict[str, Any]:
    """An exchange as the object that is written; times are seconds since `began`."""
    response = None
    if exchange.status is not None:
        response = {
            "status": exchange.status,
            "headers": redactor.headers(exchange.response_headers),
            "body": redactor.body(exchange.response_body)[:BODY_CAP],
            "body_bytes": len(exchange.response_body),
        }
    return {
        "number": exchange.number,
        "direction": exchange.direction.value,
        "party": exchange.party,
        "method": exchange.method,
        "target": redactor.text(exchange.target),
        "started_s": _since(exchange.started, began),
        "kernel_stamp": exchange.kernel_stamp,
        "phase": exchange.phase.value,
        "request": {
            "headers": redactor.headers(exchange.request_headers),
            "body": redactor.body(exchange.request_body)[:BODY_CAP],
            "body_bytes": len(exchange.request_body),
        },
        "response": response,
        "answer_from_s": _since(exchange.answer_from, began),
        "answer_until_s": _since(exchange.answer_until, began),
        "failure": exchange.failure,
        "notes": list(exchange.notes),
    }


def write(path: Path, exchanges: Iterable[Exchange], began: float, redactor: Redactor) -> None:
    """Write exchanges as JSONL.

    :raises OSError: the file cannot be written.
    """
    # A lone surrogate, which UTF-8 has no form for, becomes its JSON escape.
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for exchange in exchanges:
            file.write(json.dumps(entry(exchange, began, redactor), ensure_ascii=False) + "\n")


def read(path: Path) -> list[Exchange]:
    """The exchanges of a journal that was written before; times count from its beginning, secrets stay replaced.

    Bodies are what was kept of them.

    :raises OSError: the file cannot be read.
    :raises ValueError: a line is no entry of a journal.
    """
    with path.open(encoding="utf-8") as file:
        try:
            return [_exchange(json.loads(line)) for line in file if line.strip()]
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} is no journal: {error}") from error


def _exchange(entry: dict[str, Any]) -> Exchange:
    request, response = entry["request"], entry["response"]
    return Exchange(
        number=entry["number"],
        direction=Direction(entry["direction"]),
        party=entry["party"],
        method=entry["method"],
        target=entry["target"],
        request_headers=_headers(request["headers"]),
        started=entry["started_s"],
        request_body=request["body"].encode(),
        kernel_stamp=entry["kernel_stamp"],
        phase=Phase(entry["phase"]),
        # When the body was complete is not kept; that it was, is.
        received=None if entry["phase"] == Phase.ARRIVING else entry["started_s"],
        status=response and response["status"],
        response_headers=_headers(response["headers"]) if response else (),
        response_body=response["body"].encode() if response else b"",
        answer_from=entry["answer_from_s"],
        answer_until=entry["answer_until_s"],
        failure=entry["failure"],
        notes=tuple(entry["notes"]),
    )


def _headers(pairs: list[list[str]]) -> Headers:
    return tuple((name, value) for name, value in pairs)


def _since(moment: float | None, began: float) -> float | None:
    return None if moment is None else round(moment - began, 6)
