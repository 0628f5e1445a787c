"""Homeservers that have less than others: each loses the requirements about what it lacks, and no other."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from conformance.appservice.registration import Registration
from conformance.reference.accounts import Accounts
from conformance.reference.defects import defect, variant
from conformance.reference.policy import MatrixError
from conformance.reference.store import JsonObject
from conformance.reference.transactions import Transactions
from conformance.reference.web import Call, Errors, Paths


class _Without(Paths):
    """Some paths are not served."""

    missing: ClassVar[str]

    def of(self, path: str) -> set[str]:
        return set() if re.search(self.missing, path) else super().of(path)


@defect("PING-01")
class NoPing(_Without):
    """There is no way for appservices to ask for a ping."""

    missing = "/v1/appservice/"


@defect("DEVICE-06", "DEVICE-07")
class NoDevices(_Without):
    """There is no management of devices."""

    missing = "/(devices|delete_devices)"


@variant("no-presence", loses=("EPH-14", "EPH-15", "EPH-16", "EPH-17"))
class NoPresence(_Without):
    """There is no presence."""

    missing = "/presence"


@variant(
    "no-typing",
    loses=(
        "EPH-01",
        "EPH-02",
        "EPH-03",
        "EPH-04",
        "EPH-05",
        "EPH-06",
        "EPH-18",
        "EPH-19",
        "EPH-20",
        "EPH-21",
        "EPH-22",
    ),
)
class NoTyping(_Without):
    """There are no typing notices."""

    missing = "/typing"


@variant(
    "no-receipts",
    loses=(
        "EPH-05",
        "EPH-20",
        "EPH-07",
        "EPH-08",
        "EPH-09",
        "EPH-10",
        "EPH-11",
        "EPH-12",
        "EPH-13",
        "EPH-18",
        "EPH-22",
    ),
)
class NoReceipts(_Without):
    """There are no receipts."""

    missing = "/(receipt|read_markers)"


@defect("ROOMDIR-01")
class NoDirectories(_Without):
    """There are no lists of rooms, neither the homeserver's nor of networks."""

    missing = "/(publicRooms|directory/list)"


@defect("3PN-01", "3PN-02", "3PN-10", "3PN-12", also=("3PN-16", "3PN-17"))
class NoThirdPartyNetworks(_Without):
    """There are no third-party networks."""

    missing = "/thirdparty"


@defect("XSIGN-01", "XSIGN-03")
class NoKeys(_Without):
    """There is no encryption."""

    missing = "/keys|/sendToDevice"


@defect("ADMIN-18", "ADMIN-20")
class NoLogin(_Without):
    """Nobody can log in."""

    missing = "/login"


@variant("transactions-after-500-ms", slow=True)
class TransactionsAfter500Ms(Transactions):
    """Whatever is pushed is pushed half a second later."""

    def send(self, appservice: Registration, txn_id: str, body: JsonObject) -> bool:
        self.hs.stopping.wait(0.5)
        return super().send(appservice, txn_id, body)


@variant("registration-is-closed", loses=("*",))
class RegistrationIsClosed(Accounts):
    """Humans cannot register."""

    def register_human(self, call: Call) -> Any:
        raise MatrixError(403, "M_FORBIDDEN", "registration is closed")


@variant("unknown-is-405", loses=("INV-03",))
class UnknownIs405(Errors):
    """Unknown endpoints are answered 405."""

    def unknown_path(self) -> MatrixError:
        return MatrixError(405, "M_UNRECOGNIZED", "not here")


@variant("unknown-is-501", loses=("INV-03",))
class UnknownIs501(Errors):
    """Unknown endpoints are answered 501."""

    def unknown_path(self) -> MatrixError:
        return MatrixError(501, "M_UNKNOWN", "not implemented")
