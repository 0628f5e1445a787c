from __future__ import annotations

import pytest

from conformance.judges import errors
from conformance.wire.exchange import Exchange
from tests.judges.exchanges import answer, request

RIGHT = b'{"errcode": "M_NOT_FOUND", "error": "no"}'


@pytest.mark.parametrize(
    "exempt",
    [
        answer(200, b"x"),
        answer(401, b'{"flows": [], "session": "x"}'),
        answer(404, b"", "/register"),
        answer(404, b"", "/_matrix/federation/v1/version"),
        answer(404, b"{}", "/_matrix/client/v3/thirdparty/protocol/x"),
        answer(404, b"", method="HEAD"),
        request(status=404),
    ],
)
def test_what_is_not_judged(exempt: Exchange) -> None:
    assert not errors.is_error(exempt)


def test_what_is_judged() -> None:
    assert errors.is_error(answer(404, RIGHT))
    assert errors.is_error(answer(500, b"<html>"))
    assert errors.is_error(answer(401, RIGHT))
    assert errors.is_error(answer(404, b"", "/below/_matrix/media/v3/config"))


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"errcode": 404}', b'{"errcode": "M_X", "error": {}}']
)
def test_wrong_forms(body: bytes) -> None:
    assert errors.problem(answer(404, body))


def test_right_forms() -> None:
    assert errors.problem(answer(404, RIGHT)) is None
    assert not errors.lacks_error(answer(404, RIGHT))
    assert errors.lacks_error(answer(404, b'{"errcode": "M_X"}'))
    assert not errors.lacks_error(answer(404, b"{}"))
