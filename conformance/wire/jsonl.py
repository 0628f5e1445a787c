"""The journal as a file: one JSON object a line, secrets replaced, bodies capped (schema `journal-entry`)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from conformance.wire.exchange import Exchange
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


def _since(moment: float | None, began: float) -> float | None:
    return None if moment is None else round(moment - began, 6)
