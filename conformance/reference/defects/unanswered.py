"""What USERQ and ALIASQ share: how often a silent appservice is asked, and what the client hears of it."""

from __future__ import annotations

from contextlib import suppress
from typing import ClassVar

from conformance.appservice.registration import Registration
from conformance.reference.outgoing import NoResponse, Reply, To
from conformance.reference.policy import MatrixError
from conformance.reference.queries import Queries


class AskedOnce(Queries):
    """Queries of one kind are not tried again."""

    about: ClassVar[To]

    def persistently(self, appservice: Registration, about: To, identifier: str) -> Reply | None:
        if about is not self.about:
            return super().persistently(appservice, about, identifier)
        for attempt in range(self.tries):
            if attempt and self.hs.stopping.wait(self.hs.clock.scaled(self.pause)):
                return None
            try:
                return self.once(appservice, about, identifier)
            except NoResponse as error:
                if self.final(error):
                    return None
        return None

    def final(self, error: NoResponse) -> bool:
        """Whether a failure ends the query."""
        return True


class TimeOutsAreFinal(AskedOnce):
    """Those that were never answered are not tried again, while those that were cut are."""

    def final(self, error: NoResponse) -> bool:
        return error.timed_out


class CutsAreFinal(AskedOnce):
    """Those that were cut are not tried again, while those that were never answered are."""

    def final(self, error: NoResponse) -> bool:
        return not error.timed_out


class SecondAnswersAreLost(Queries):
    """What an appservice answers when it is asked again is not heard."""

    about: ClassVar[To]

    def persistently(self, appservice: Registration, about: To, identifier: str) -> Reply | None:
        if about is not self.about:
            return super().persistently(appservice, about, identifier)
        with suppress(NoResponse):
            return self.once(appservice, about, identifier)
        super().persistently(appservice, about, identifier)
        return self.too_late()

    def too_late(self) -> Reply | None:
        """What is made of an appservice that was asked again."""
        return None


class NotInTime(Queries):
    """Time-outs of queries of one kind are told otherwise than by 408."""

    about: ClassVar[To]
    status, errcode = 504, "M_UNKNOWN"

    def ask(self, kind: str, about: To, identifier: str) -> None:
        try:
            super().ask(kind, about, identifier)
        except MatrixError as error:
            if about is self.about and error.status == 408:
                raise MatrixError(self.status, self.errcode, error.error) from error
            raise
