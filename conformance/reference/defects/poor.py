"""Homeservers that have less than others: each loses the requirements about what it lacks, and no other."""

from __future__ import annotations

import re
from typing import ClassVar

from conformance.appservice.registration import Registration
from conformance.reference.defects import defect, variant
from conformance.reference.policy import MatrixError
from conformance.reference.store import JsonObject
from conformance.reference.transactions import Transactions
from conformance.reference.web import Errors, Paths


class _Without(Paths):
    """Some paths are not served."""

    missing: ClassVar[str]

    def of(self, path: str) -> set[str]:
        return set() if re.search(self.missing, path) else super().of(path)


@defect("PING-01")
class NoPing(_Without):
    """There is no way for appservices to ask for a ping."""

    missing = "/v1/appservice/"


@defect("DEVICE-06")
class NoDevices(_Without):
    """There is no management of devices."""

    missing = "/(devices|delete_devices)"


@defect("EPH-14")
class NoPresence(_Without):
    """There is no presence."""

    missing = "/presence"


@defect("EPH-01")
class NoTyping(_Without):
    """There are no typing notices."""

    missing = "/typing"


@defect("EPH-05")
class NoReceipts(_Without):
    """There are no receipts."""

    missing = "/(receipt|read_markers)"


@defect("ROOMDIR-01")
class NoDirectories(_Without):
    """There are no lists of rooms, neither the homeserver's nor of networks."""

    missing = "/(publicRooms|directory/list)"


@defect("3PN-01")
class NoThirdPartyNetworks(_Without):
    """There are no third-party networks."""

    missing = "/thirdparty"


@defect("XSIGN-01")
class NoKeys(_Without):
    """There is no encryption."""

    missing = "/keys|/sendToDevice"


@defect("ADMIN-12")
class NoLogin(_Without):
    """Nobody can log in."""

    missing = "/login"


@variant("transactions-after-500-ms")
class TransactionsAfter500Ms(Transactions):
    """Whatever is pushed is pushed half a second later."""

    def send(self, appservice: Registration, txn_id: str, body: JsonObject) -> bool:
        self.hs.stopping.wait(0.5)
        return super().send(appservice, txn_id, body)


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
