"""No secret reaches a report, a log, a terminal or a journal file."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.wire.redaction import Redactor, contains_secret

TOKEN = "hq-hs-b-+/=0123456789abcdef"  # B's has the characters that are encoded


@pytest.fixture
def redactor() -> Redactor:
    made = Redactor()
    made.add(TOKEN, "hs_token of B")
    return made


@pytest.mark.parametrize(
    "text",
    [
        f"as it is: {TOKEN}.",
        "/_matrix/x?access_token=hq-hs-b-%2B%2F%3D0123456789abcdef&y=1",
        "/_matrix/x?access_token=hq-hs-b-%2b%2f%3d0123456789abcdef&y=1",
        f"Authorization: Bearer {TOKEN}",
        json.dumps({"hs_token": TOKEN}),
        json.dumps({"nested": {"list": [TOKEN]}}),
        '"hq-hs-b-+\\/=0123456789abcdef"',
    ],
)
def test_a_known_secret_is_replaced_however_it_is_written(redactor: Redactor, text: str) -> None:
    shown = redactor.text(text)
    assert "0123456789abcdef" not in shown
    assert "<hs_token of B>" in shown or "<redacted>" in shown


def test_what_stands_around_a_secret_is_kept(redactor: Redactor) -> None:
    assert redactor.text(f"before {TOKEN} after") == "before <hs_token of B> after"
    assert redactor.text("/x?access_token=abc&user_id=%40a&ts=1") == "/x?access_token=<redacted>&user_id=%40a&ts=1"


@pytest.mark.parametrize(
    "key",
    [
        "access_token",
        "as_token",
        "hs_token",
        "refresh_token",
        "login_token",
        "password",
        "new_password",
        "token",
        "mac",
    ],
)
def test_credentials_nobody_announced_are_known_by_their_keys(key: str) -> None:
    redactor = Redactor()
    assert "geheim" not in redactor.text(json.dumps({key: 'ge"heim', "x": {key: "geheim"}}))
    assert "geheim" not in redactor.text(f"/path?a=b&{key}=geheim")
    assert "heim" not in redactor.text(json.dumps({key: 'ge"heim'}))


def test_a_credential_that_begins_like_a_label_is_none() -> None:
    assert "hunter2" not in Redactor().text('{"password": "<hunter2"} ?token=<hunter2')


def test_other_keys_are_shown() -> None:
    text = json.dumps({"user_id": "@a:hs", "room_id": "!r:hs", "event_id": "$e"})
    assert Redactor().text(text) == text


def test_the_longer_of_two_secrets_wins() -> None:
    redactor = Redactor()
    redactor.add("abc", "short")
    redactor.add("abcdef", "long")
    assert redactor.text("abcdef abc") == "<long> <short>"


def test_the_first_label_of_a_secret_stays() -> None:
    redactor = Redactor()
    redactor.add("abc", "first")
    redactor.add("abc", "second")
    assert redactor.text("abc") == "<first>"


def test_an_empty_secret_is_ignored() -> None:
    redactor = Redactor()
    redactor.add("", "nothing")
    assert redactor.text("text") == "text"
    assert redactor.secrets == frozenset()


def test_redacting_twice_changes_nothing_more(redactor: Redactor) -> None:
    once = redactor.text(f'{{"hs_token": "{TOKEN}", "password": "x"}} ?access_token={TOKEN} Bearer {TOKEN}')
    assert redactor.text(once) == once


@pytest.mark.parametrize("name", ["Authorization", "authorization", "Cookie", "Set-Cookie", "Proxy-Authorization"])
def test_headers_that_hold_credentials_show_none(redactor: Redactor, name: str) -> None:
    assert redactor.headers(((name, "Basic c2VjcmV0"),)) == [(name, "<redacted>")]


def test_a_bearer_header_says_whose_token_it_is(redactor: Redactor) -> None:
    headers = (("Authorization", f"Bearer {TOKEN}"), ("Content-Type", "application/json"))
    assert redactor.headers(headers) == [
        ("Authorization", "Bearer <hs_token of B>"),
        ("Content-Type", "application/json"),
    ]


def test_a_body_that_is_not_utf8_is_shown_with_escapes(redactor: Redactor) -> None:
    assert redactor.body(b"\xff " + TOKEN.encode()) == "\\xff <hs_token of B>"


@given(secret=st.text(min_size=4), before=st.text(), after=st.text())
def test_no_secret_survives(secret: str, before: str, after: str) -> None:
    redactor = Redactor()
    redactor.add(secret, "label")
    shown = redactor.text(before + secret + after)
    rest = (before + after).replace(secret, "")
    assert secret not in shown or secret in f"{rest}<label>" or secret in "<label><redacted>"


def test_whether_a_text_holds_a_secret_can_be_asked(redactor: Redactor) -> None:
    assert contains_secret(f"x{TOKEN}", redactor.secrets)
    assert not contains_secret("x", redactor.secrets)


def test_prose_about_bearer_tokens_is_left_alone() -> None:
    text = "exactly one Authorization header, Bearer with the hs_token"
    assert Redactor().text(text) == text


def test_a_short_bearer_token_in_a_header_is_hidden_all_the_same() -> None:
    assert Redactor().headers((("Authorization", "Bearer short"),)) == [("Authorization", "<redacted>")]
