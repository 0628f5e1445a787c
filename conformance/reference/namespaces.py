"""Which IDs are whose (AS: Registration, definition `Namespaces`)."""

from __future__ import annotations

import functools
import re

from conformance.appservice.registration import Namespace, Registration
from conformance.reference.policy import Policy

#: The classes of POSIX bracket expressions, in Python's words.
_CLASSES = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "blank": " \\t",
    "digit": "0-9",
    "lower": "a-z",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\s",
    "upper": "A-Z",
    "xdigit": "0-9a-fA-F",
}


@functools.cache
def compiled(regex: str) -> re.Pattern[str]:
    """A POSIX regular expression, as far as Python's means the same.

    :raises re.error: it is none.
    """
    return re.compile(re.sub(r"\[:(\w+):\]", lambda found: _CLASSES.get(found[1], found[0]), regex))


class Namespaces(Policy):
    """Matching of IDs against namespaces, and what follows from it."""

    def entries(self, appservice: Registration, kind: str) -> tuple[Namespace, ...]:
        """An appservice's `users`, `aliases` or `rooms`; a missing key is an empty list."""
        entries: tuple[Namespace, ...] | None = getattr(appservice, kind)
        return entries or ()

    def matches(self, entry: Namespace, identifier: str) -> bool:
        """Whether a regular expression covers an ID, sigil and server name included, from end to end."""
        return compiled(entry.regex).fullmatch(identifier) is not None

    def covers(self, appservice: Registration, kind: str, identifier: str) -> bool:
        """Whether any entry covers an ID, exclusive or not."""
        return any(self.matches(entry, identifier) for entry in self.entries(appservice, kind))

    def claims(self, appservice: Registration, kind: str, identifier: str) -> bool:
        """Whether any exclusive entry covers an ID, whatever other entries say."""
        return any(entry.exclusive and self.matches(entry, identifier) for entry in self.entries(appservice, kind))

    def claimed(self, kind: str, identifier: str, by_other_than: Registration | None = None) -> bool:
        """Whether an ID is the exclusive property of some (other) appservice; being unreachable changes nothing."""
        return any(self.claims(each, kind, identifier) for each in self.hs.appservices if each is not by_other_than)

    def is_sender(self, appservice: Registration, user_id: str) -> bool:
        """Whether a user is the appservice's sender user."""
        return user_id == self.hs.user_id(appservice.sender_localpart)

    def is_own_user(self, appservice: Registration, user_id: str) -> bool:
        """Whether a local user is one of the appservice's: its sender (since v1.11), or covered by its `users`.

        Users of other servers are nobody's here (AS: Registration, since v1.5).
        """
        if not self.hs.is_local(user_id):
            return False
        return self.is_sender(appservice, user_id) or self.covers(appservice, "users", user_id)
