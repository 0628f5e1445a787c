"""Defects of area XSIGN: cross-signing keys of ghosts."""

from __future__ import annotations

from typing import Any

from conformance.homeserver.keys import CROSS_SIGNING
from conformance.reference.accounts import BY_PASSWORD
from conformance.reference.defects import defect
from conformance.reference.devices import Keys
from conformance.reference.store import JsonObject
from conformance.reference.web import Answer, Call, answer


class _Asking(Keys):
    """Appservices are asked for interactive authentication as well."""

    def unauthorised(self, call: Call, keys: dict[str, JsonObject]) -> Answer | None:
        user_id = call.requester.user_id
        if call.requester.appservice is not None and self.asks(user_id, "master" in self._before(user_id)):
            return self.hs.interaction.required(call, [BY_PASSWORD], user_id)
        return super().unauthorised(call, keys)

    def _before(self, user_id: str) -> dict[str, JsonObject]:
        return self.store.accounts[user_id].signing_keys

    def asks(self, user_id: str, again: bool) -> bool:
        """Whether a user whom an appservice acts as is asked; `again`: there is a key already."""
        raise NotImplementedError


@defect("XSIGN-01")
class FirstKeysAskForAPassword(_Asking):
    """The first key of a ghost takes interactive authentication."""

    def asks(self, user_id: str, again: bool) -> bool:
        return not again


@defect("XSIGN-01")
class KeysOfGhostsAreDropped(Keys):
    """Cross-signing keys of ghosts are accepted and not kept."""

    def upload_signing_keys(self, call: Call) -> Any:
        return super().upload_signing_keys(call) if call.requester.appservice is None else {}


@defect("XSIGN-02")
class ReplacedKeysAskForAPassword(_Asking):
    """Replacing a ghost's key takes interactive authentication."""

    def asks(self, user_id: str, again: bool) -> bool:
        return again


@defect("XSIGN-02")
class TheThirdKeyAsksForAPassword(_Asking):
    """A ghost's key can be replaced once without interactive authentication."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._replaced: set[str] = set()

    def asks(self, user_id: str, again: bool) -> bool:
        asked = user_id in self._replaced
        self._replaced.update([user_id] if again else [])
        return asked


@defect("XSIGN-02")
class TheKeyOfTheSenderAsksForAPassword(_Asking):
    """Replacing the key of a sender user takes interactive authentication."""

    def asks(self, user_id: str, again: bool) -> bool:
        return again and user_id in {self.hs.user_id(each.sender_localpart) for each in self.hs.appservices}


@defect("XSIGN-02")
class KeysOfDevicesAskForAPassword(Keys):
    """Replacing a ghost's key takes interactive authentication when the appservice acts as a device."""

    def unauthorised(self, call: Call, keys: dict[str, JsonObject]) -> Answer | None:
        if call.requester.appservice is not None and call.requester.device_id is not None:
            return self.hs.interaction.required(call, [BY_PASSWORD], call.requester.user_id)
        return super().unauthorised(call, keys)


@defect("XSIGN-02")
class ReplacedKeysStay(Keys):
    """A new key of a ghost that has one is accepted and not kept."""

    def unauthorised(self, call: Call, keys: dict[str, JsonObject]) -> Answer | None:
        has = bool(self.store.accounts[call.requester.user_id].signing_keys)
        return answer({}) if has and call.requester.appservice is not None else super().unauthorised(call, keys)


@defect("XSIGN-01")
class AllKeysButTheMasterAskForAPassword(Keys):
    """Self-signing and user-signing keys of ghosts take interactive authentication, master keys alone do not."""

    def unauthorised(self, call: Call, keys: dict[str, JsonObject]) -> Answer | None:
        if call.requester.appservice is not None and set(keys) - {"master"}:
            return self.hs.interaction.required(call, [BY_PASSWORD], call.requester.user_id)
        return super().unauthorised(call, keys)


@defect("XSIGN-02")
class ReplacedKeysOfOpenGhostsAskForAPassword(_Asking):
    """Replacing keys of a ghost that is in no exclusive namespace takes interactive authentication."""

    def asks(self, user_id: str, again: bool) -> bool:
        claimed = any(
            self.hs.namespaces.is_sender(each, user_id) or self.hs.namespaces.claims(each, "users", user_id)
            for each in self.hs.appservices
        )
        return again and not claimed


@defect("XSIGN-02")
class KeysWithoutAMasterKeyAskForAPassword(Keys):
    """Replacing a ghost's self-signing and user-signing keys alone takes interactive authentication."""

    def unauthorised(self, call: Call, keys: dict[str, JsonObject]) -> Answer | None:
        if call.requester.appservice is not None and "master" not in keys:
            return self.hs.interaction.required(call, [BY_PASSWORD], call.requester.user_id)
        return super().unauthorised(call, keys)


@defect("XSIGN-03")
class NobodyIsAskedForNewKeys(Keys):
    """Nobody has to authenticate interactively to replace a key."""

    def unauthorised(self, call: Call, keys: dict[str, JsonObject]) -> Answer | None:
        return None


@defect("XSIGN-03")
class TheKeyIsReplacedBeforeThePassword(Keys):
    """A key is replaced while its human is asked for interactive authentication."""

    def unauthorised(self, call: Call, keys: dict[str, JsonObject]) -> Answer | None:
        asked = super().unauthorised(call, keys)
        self.store.put_signing_keys(call.requester.user_id, keys)
        return asked


@defect("XSIGN-03")
class HumansAreAskedForTheirFirstKey(Keys):
    """A human's first key takes interactive authentication."""

    def unauthorised(self, call: Call, keys: dict[str, JsonObject]) -> Answer | None:
        if call.requester.appservice is None:
            return self.hs.interaction.required(call, [BY_PASSWORD], call.requester.user_id)
        return None


@defect("XSIGN-04")
class TheBodySaysWhoseKeyItIs(Keys):
    """Keys are kept for the user whom the first of them names, whoever uploads them."""

    def upload_signing_keys(self, call: Call) -> Any:
        if call.requester.appservice is None:
            return super().upload_signing_keys(call)
        keys = {name.removesuffix("_key"): key for name, key in call.json.items() if name in CROSS_SIGNING}
        self.store.put_signing_keys(next(iter(keys.values()))["user_id"], keys)
        return {}


@defect("XSIGN-04")
class TheOwnerOfAKeyIsNotCompared(Keys):
    """A key that names another user is kept for the one who uploads it."""

    def check_owner(self, call: Call, keys: dict[str, JsonObject]) -> None:
        return


@defect("XSIGN-04")
class OnlyTheOwnerOfTheLastKeyIsCompared(Keys):
    """Of the keys of an upload only the last may not name another user, and a master key comes first."""

    def check_owner(self, call: Call, keys: dict[str, JsonObject]) -> None:
        super().check_owner(call, {use: key for use, key in keys.items() if use != "master"})


@defect("XSIGN-04")
class FirstKeysNameAnybody(Keys):
    """A ghost without keys may upload one that names another user."""

    def check_owner(self, call: Call, keys: dict[str, JsonObject]) -> None:
        if self.store.accounts[call.requester.user_id].signing_keys or call.requester.appservice is None:
            super().check_owner(call, keys)


@defect("XSIGN-04")
class RefusedKeysAreKept(Keys):
    """A key that names another ghost is refused, and kept for that ghost."""

    def check_owner(self, call: Call, keys: dict[str, JsonObject]) -> None:
        try:
            super().check_owner(call, keys)
        finally:
            for use, key in keys.items():
                if key.get("user_id") in self.store.accounts and call.requester.appservice is not None:
                    self.store.put_signing_keys(str(key["user_id"]), {use: key})
