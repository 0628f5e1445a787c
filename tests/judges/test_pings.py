"""Which pings were asked for."""

from __future__ import annotations

import pytest

from conformance.judges import pings
from conformance.wire.exchange import Exchange
from tests.judges.exchanges import answer, request

PATH = "/_matrix/client/v1/appservice/{}/ping"


def call(began: float, ended: float | None, appservice_id: str = "hq%20main") -> Exchange:
    exchange = answer(200, b"{}", PATH.format(appservice_id), "POST")
    exchange.started, exchange.answer_until = began, ended
    return exchange


def ping(moment: float) -> Exchange:
    return request("/_matrix/app/v1/ping", method="POST", started=moment)


def test_calls_are_told_by_the_id_in_their_path() -> None:
    calls = [call(1, 2), call(3, 4, "hq-second"), call(5, 6, "%68q%20main"), answer(200, b"{}")]
    unstable = answer(200, b"{}", "/_matrix/client/unstable/org.example/appservice/hq%20main/ping?x=/y", "POST")
    assert pings.asked([*calls, unstable], "hq main") == [calls[0], calls[2], unstable]


@pytest.mark.parametrize(
    ("moments", "wrong"),
    [
        ([], None),
        ([10.5], None),
        ([10.1, 10.2, 10.3], None),
        ([10.1, 10.2, 10.3, 10.4], 10.4),
        ([9.9], 9.9),
        ([15.0], None),
        ([16.5], 16.5),
        ([10.5, 20.5, 20.6, 99.0], None),
        ([10.5, 20.5, 20.6, 20.7, 99.0], 99.0),
        ([19.9], 19.9),
    ],
)
def test_a_ping_comes_after_its_call_and_not_much_later(moments: list[float], wrong: float | None) -> None:
    found = pings.unasked(map(ping, moments), [call(10.0, 11.0), call(20.0, None)], late=5.0)
    assert (found.started if found else None) == wrong


def test_the_call_that_ends_first_has_caused_a_ping_that_two_can_have() -> None:
    calls = [call(1.0, 9.0), call(1.5, 2.0)]
    assert pings.unasked(map(ping, [1.6, 1.7, 1.8, 8.0, 8.1, 8.2]), calls, late=1.0) is None
