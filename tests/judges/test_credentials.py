from __future__ import annotations

import pytest

from conformance.judges import credentials
from conformance.wire.exchange import Exchange
from tests.judges.exchanges import event, request, transaction

TOKEN = "hs-token-a"
AWKWARD = "hs-b-+/=token"
OTHERS = {"hs-token-z"}


def bearing(*values: str, query: str = "") -> Exchange:
    return request(f"/x{query}", headers=tuple(("authorization", value) for value in values))


@pytest.mark.parametrize("value", [f"Bearer {TOKEN}", f"bearer {TOKEN}", "Bearer hs-token-z"])
def test_the_right_header_and_another_appservices_pass(value: str) -> None:
    assert credentials.header_problem(bearing(value), TOKEN, OTHERS) is None


@pytest.mark.parametrize(
    "values", [(), (TOKEN,), (f"Basic {TOKEN}",), ("Bearer ",), ("Bearer x",), (f"Bearer {TOKEN}",) * 2]
)
def test_wrong_headers_are_found_and_not_quoted(values: tuple[str, ...]) -> None:
    problem = credentials.header_problem(bearing(*values), TOKEN, OTHERS)
    assert problem
    assert TOKEN not in problem


@pytest.mark.parametrize("seen", ["hs-b-%2B%2F%3Dtoken", "hs-b- /=token", "hs-b-", "=token", "hs-b-token"])
def test_a_mangled_token_is_left_to_its_own_rule(seen: str) -> None:
    mangled = bearing(f"Bearer {seen}")
    assert credentials.header_problem(mangled, AWKWARD, OTHERS) is None
    assert credentials.mangling(mangled, AWKWARD)


@pytest.mark.parametrize("value", [AWKWARD, "hs-token-z", "stale"])
def test_what_is_no_mangled_token_is_left_to_the_others(value: str) -> None:
    assert credentials.mangling(bearing(f"Bearer {value}"), AWKWARD) is None


def test_a_raw_plus_in_a_query_is_a_blank() -> None:
    assert credentials.mangling(bearing(query="?access_token=hs-b-+/=token"), AWKWARD)
    assert credentials.mangling(bearing(query="?access_token=hs-b-%2b/%3Dtoken"), AWKWARD) is None


def test_the_query_may_say_what_the_header_says() -> None:
    header = f"Bearer {TOKEN}"
    assert not credentials.query_disagrees(bearing(header), TOKEN)
    assert not credentials.query_disagrees(bearing(header, query=f"?access_token={TOKEN}"), TOKEN)
    assert not credentials.query_disagrees(bearing(query=f"?access_token={TOKEN}"), TOKEN)
    assert not credentials.query_disagrees(bearing(query="?access_token=hs-b-+/=token"), AWKWARD)
    assert credentials.query_disagrees(bearing(header, query="?access_token=as-token"), TOKEN)
    assert credentials.query_disagrees(bearing(header, query=f"?access_token={TOKEN}&access_token="), TOKEN)


def test_strangers_are_those_with_anothers_token() -> None:
    assert credentials.stranger(bearing("Bearer hs-token-z"), TOKEN, OTHERS)
    assert credentials.stranger(bearing(query="?access_token=hs-token-z"), TOKEN, OTHERS)
    assert not credentials.stranger(bearing(f"Bearer {TOKEN}", query="?access_token=hs-token-z"), TOKEN, OTHERS)
    assert not credentials.stranger(bearing("Bearer nobodys"), TOKEN, OTHERS)
    assert not credentials.stranger(bearing(), TOKEN, OTHERS)


SECRETS = credentials.Secrets({"as-secret+1": "the as_token", "short": "a word"})


@pytest.mark.parametrize(
    ("leaky", "where"),
    [
        (request("/x?token=as-secret%2B1"), "target"),
        (request(headers=(("X-Token", "as-secret+1"),)), "header"),
        (request(body={"token": "as-secret+1"}), "body"),
        (request(body=b"not json: as-secret+1"), "body"),
        (transaction("1", event("$1", unsigned={"token": "as-secret+1"})), "body"),
    ],
)
def test_leaks_are_found(leaky: Exchange, where: str) -> None:
    leak = SECRETS.leak(leaky)
    assert leak
    assert where in leak
    assert "as-secret" not in leak


def test_what_senders_write_is_not_searched() -> None:
    quoted = {"body": "as-secret+1"}
    assert SECRETS.leak(transaction("1", event("$1", content=quoted, unsigned={"prev_content": quoted}))) is None
    assert SECRETS.leak(request(body={"short": "short"})) is None
    assert credentials.Secrets({}).leak(request()) is None
