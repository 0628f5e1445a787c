"""Keeping secrets out of everything that is written or shown."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

from conformance.wire.exchange import Headers

#: Headers whose value is a credential.
_SECRET_HEADERS = {"authorization", "proxy-authorization", "cookie", "set-cookie"}

#: JSON keys and query or form parameters whose value is a credential.
_SECRET_KEYS = (
    "access_token|as_token|hs_token|refresh_token|user_token|token|password|new_password|old_password"
    "|registration_shared_secret|macaroon_secret_key|form_secret|shared_secret|secret|mac|nonce|login_token"
)
_JSON_SECRET = re.compile(rf'("(?:{_SECRET_KEYS})"\s*:\s*")((?:[^"\\]|\\.)*)(")')
_QUERY_SECRET = re.compile(rf"((?:^|[?&])(?:{_SECRET_KEYS})=)(<[^<>&]+>|[^&\s\"']*)")
_LABEL = re.compile(r"<[^<>]+>")
# In prose ("Bearer with the hs_token") a word follows; tokens are longer.
_BEARER = re.compile(r"(Bearer\s+)([^\s\"'<]{12,})", re.IGNORECASE)


class Redactor:
    """Replaces the secrets of a run: known tokens by value, other credentials by the key or header they stand in."""

    def __init__(self) -> None:
        self._labels: dict[str, str] = {}
        self._pattern: re.Pattern[str] | None = None

    def add(self, secret: str, label: str) -> None:
        """Replace `secret`, as it is and percent-encoded, by `<label>` from now on. Empty strings are ignored."""
        if not secret:
            return
        for form in (secret, quote(secret, safe=""), quote_plus(secret), secret.replace("/", "\\/")):
            self._labels.setdefault(form, label)
        self._pattern = None

    def _known(self) -> re.Pattern[str]:
        # Made when a text is shown: hundreds of secrets are added before.
        if self._pattern is None:
            # The longest first: a secret may be the beginning of another.
            forms = sorted(self._labels, key=len, reverse=True)
            self._pattern = re.compile("|".join(re.escape(form) for form in forms))
        return self._pattern

    @property
    def secrets(self) -> frozenset[str]:
        """Everything that is replaced by value."""
        return frozenset(self._labels)

    def text(self, text: str) -> str:
        """A text without its secrets."""
        if self._labels:
            text = self._known().sub(lambda found: f"<{self._labels[found.group()]}>", text)
        text = _JSON_SECRET.sub(_keep_label, text)
        text = _QUERY_SECRET.sub(_keep_label, text)
        return _BEARER.sub(_keep_label, text)

    def body(self, body: bytes) -> str:
        """A body as text without its secrets; bytes that are not UTF-8 are shown as escapes."""
        return self.text(body.decode("utf-8", "backslashreplace"))

    def headers(self, headers: Headers) -> list[tuple[str, str]]:
        """Headers without their secrets."""
        return [(name, self._header(name, value)) for name, value in headers]

    def _header(self, name: str, value: str) -> str:
        shown = self.text(value)
        if name.lower() not in _SECRET_HEADERS or shown != value:
            return shown
        return "<redacted>"


def _keep_label(found: re.Match[str]) -> str:
    """Redact a value unless it has been replaced by a label that says more."""
    before, value, *after = found.groups()
    shown = value if _LABEL.fullmatch(value) else "<redacted>"
    return before + shown + "".join(after)


def contains_secret(text: str, secrets: Iterable[str]) -> bool:
    """Whether any of the secrets occurs in a text."""
    return any(secret in text for secret in secrets)
