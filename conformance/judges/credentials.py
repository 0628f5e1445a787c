"""Which credentials a request to an appservice carries, and whether they are the right ones (AS: Authorisation).

A token is never quoted in a finding: one that a homeserver has mangled would not be recognised as a secret.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote

from conformance.wire.exchange import Exchange, NotJson

#: The query parameter of versions up to v1.3.
PARAMETER = "access_token"


def bearer(exchange: Exchange) -> str | None:
    """The token of the first `Authorization` header, if its scheme is Bearer."""
    for value in exchange.request_header("Authorization"):
        scheme, _, token = value.strip().partition(" ")
        return token.strip() if scheme.lower() == "bearer" else None
    return None


def query_tokens(exchange: Exchange) -> list[str]:
    """The values of the `access_token` query parameters, still percent-encoded."""
    pairs = (pair.partition("=") for pair in exchange.raw_query.split("&"))
    return [value for key, _, value in pairs if unquote(key) == PARAMETER]


def as_form(value: str) -> str:
    """A raw query value, decoded as forms are: a plus is a blank."""
    return unquote(value.replace("+", " "))


def is_awkward(token: str) -> bool:
    """Whether a token has characters that mean something in a URL, so that it can be mangled on the way."""
    return quote(token, safe="") != token


def header_problem(exchange: Exchange, token: str, others: Collection[str]) -> str | None:
    """Why a request does not carry exactly one Bearer header with the appservice's `hs_token`; None when it does.

    Another appservice's token is the subject of AUTH-06, how an awkward one arrives that of AUTH-12: neither counts.
    """
    values = exchange.request_header("Authorization")
    if not values:
        return "no Authorization header"
    if len(values) > 1:
        return f"{len(values)} Authorization headers"
    carried = bearer(exchange)
    if carried is None:
        return "an Authorization header of another scheme"
    if carried != token and carried not in others and not _mangled(carried, token):
        return "a Bearer token that is not the hs_token" if carried else "an empty Bearer token"
    return None


def stranger(exchange: Exchange, own: str, others: Collection[str]) -> bool:
    """Whether a request carries the `hs_token` of another appservice, in its header or else in its query."""
    carried = bearer(exchange)
    tokens = {carried} if carried is not None else {as_form(each) for each in query_tokens(exchange)}
    return any(token in others for token in tokens if token != own)


def query_disagrees(exchange: Exchange, token: str) -> bool:
    """Whether an `access_token` parameter is something else than the header's token (or than `token`).

    How an awkward one is encoded is the subject of AUTH-12.
    """
    accepted = {token, bearer(exchange) or token}
    values = [as_form(each) for each in query_tokens(exchange)]
    return any(value not in accepted and not _mangled(value, token) for value in values)


def mangling(exchange: Exchange, token: str) -> str | None:
    """Where an awkward `hs_token` arrives mangled, and how; None when it does not, or something else is there."""
    how = _mangled(bearer(exchange) or "", token)
    if how:
        return f"a header with {how}"
    for value in query_tokens(exchange):
        how = _mangled(as_form(value), token)
        if how:
            return f"a query with {how}"
    return None


def _mangled(seen: str, token: str) -> str | None:
    if seen == token or not seen or not is_awkward(token):
        return None
    if unquote(seen) == token:
        return "the hs_token percent-encoded once too often"
    if seen == token.replace("+", " "):
        return "blanks in place of the plus signs of the hs_token"
    if token.startswith(seen) or token.endswith(seen):
        return f"only {len(seen)} of the {len(token)} characters of the hs_token"
    if _letters(seen) == _letters(token):
        return "the hs_token with other characters in place of + / ="
    return None


def _letters(text: str) -> str:
    return re.sub(r"[^a-zA-Z0-9]", "", unquote(text))


class Secrets:
    """Tokens that must not reach an appservice, and a search for them."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        """Take tokens and what to call each."""
        forms = {
            form: label
            for token, label in labels.items()
            if len(token) >= 8  # shorter ones occur by chance
            for form in {token, quote(token, safe=""), quote(token), token.replace("/", "\\/")}
        }
        self._labels = {form.encode(): label for form, label in forms.items()}
        ordered = sorted(self._labels, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(map(re.escape, ordered))) if ordered else None

    def leak(self, exchange: Exchange) -> str | None:
        """What leaks where in a request; None when nothing does. The content of events is not searched."""
        found = self._in(exchange.target.encode())
        if found:
            return f"{found} in the request target"
        for name, value in exchange.request_headers:
            found = self._in(value.encode("utf-8", "surrogateescape")) or self._in(name.encode())
            if found:
                return f"{found} in the header {name}"
        found = self._in(exchange.request_body) and self._in(_without_content(exchange))
        return f"{found} in the body" if found else None

    def _in(self, data: bytes) -> str | None:
        match = self._pattern.search(data) if self._pattern else None
        return self._labels[match.group()] if match else None


def _without_content(exchange: Exchange) -> bytes:
    """The body of a request without what the senders of events wrote into them."""
    import json

    try:
        body = exchange.request_json
    except NotJson:
        return exchange.request_body
    if isinstance(body, dict) and isinstance(body.get("events"), list):
        body = {**body, "events": _stripped(body["events"])}
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _stripped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _stripped(item) for key, item in value.items() if key not in ("content", "prev_content")}
    if isinstance(value, list):
        return [_stripped(item) for item in value]
    return value


def tokens_given(exchanges: Iterable[Exchange]) -> set[str]:
    """The access tokens that the homeserver gave out in its answers to logins and registrations."""
    found = set()
    for exchange in exchanges:
        if b'"access_token"' not in exchange.response_body:
            continue
        try:
            body = exchange.response_json
        except NotJson:
            continue
        token = body.get("access_token") if isinstance(body, dict) else None
        if isinstance(token, str):
            found.add(token)
    return found
