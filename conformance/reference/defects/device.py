"""Defects of area DEVICE: devices that appservices act with and manage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from conformance.appservice.registration import Registration
from conformance.reference.accounts import BY_PASSWORD, Accounts
from conformance.reference.defects import defect
from conformance.reference.devices import Devices, Keys
from conformance.reference.identity import Identity, Requester
from conformance.reference.policy import MatrixError, Policy
from conformance.reference.store import JsonObject
from conformance.reference.web import Answer, Call, Created


def _authentication(policy: Policy, call: Call) -> Answer | None:
    """Interactive authentication, for appservices too."""
    return policy.hs.interaction.required(call, [BY_PASSWORD], call.requester.user_id)


def _is_bulk(call: Call) -> bool:
    return call.path.endswith("/delete_devices")


class _Lenient(Identity):
    """More devices can be acted as than should."""

    def device(self, call: Call, user_id: str) -> str | None:
        device_id = call.query.get("device_id")
        if device_id is not None and self.allows(call, user_id, device_id):
            return device_id
        return super().device(call, user_id)

    def allows(self, call: Call, user_id: str, device_id: str) -> bool:
        """Whether a user can be acted as with a device that may not be its own."""
        raise NotImplementedError

    def owners(self, device_id: str) -> list[str]:
        """All who have a device of that ID."""
        return [user_id for user_id, account in self.store.accounts.items() if device_id in account.devices]


@defect("DEVICE-01", "DEVICE-02", "DEVICE-03", "DEVICE-04", also=("DEVICE-15", "SYNC-03"))
class TheDeviceIdIsIgnored(Identity):
    """`device_id` in the query means nothing."""

    def device(self, call: Call, user_id: str) -> str | None:
        return None


@defect("DEVICE-01")
class WhoamiNamesNoDevice(Accounts):
    """Whoami does not say which device an appservice acts as."""

    def whoami(self, call: Call) -> JsonObject:
        who = super().whoami(call)
        if call.requester.appservice is not None:
            who.pop("device_id", None)
        return who


@defect("DEVICE-01")
class WhoamiNamesTheFirstDevice(Accounts):
    """Whoami as any device of a ghost names the ghost's first."""

    def whoami(self, call: Call) -> JsonObject:
        who = super().whoami(call)
        if "user_id" in call.query and "device_id" in who:
            who["device_id"] = next(iter(self.store.accounts[call.requester.user_id].devices))
        return who


@defect("DEVICE-01")
class DeviceIdsAreDecodedTwice(Identity):
    """`device_id` in the query is percent-decoded once too often."""

    def device(self, call: Call, user_id: str) -> str | None:
        if "device_id" in call.query:
            call.query["device_id"] = unquote(call.query["device_id"])
        return super().device(call, user_id)


@defect("DEVICE-02", "DEVICE-03", "DEVICE-04")
class UnknownDevicesAreIgnored(Identity):
    """A `device_id` that the user does not have counts as none."""

    def device(self, call: Call, user_id: str) -> str | None:
        device_id = call.query.get("device_id")
        return device_id if device_id in self.store.accounts[user_id].devices else None


@defect("DEVICE-02", "DEVICE-03", "DEVICE-04")
class OnlyWhoamiLooksForTheDevice(Identity):
    """A `device_id` that the user does not have counts as none, but for whoami."""

    def device(self, call: Call, user_id: str) -> str | None:
        known = call.query.get("device_id") in self.store.accounts[user_id].devices
        return super().device(call, user_id) if known or call.path.endswith("/whoami") else None


@defect("DEVICE-02", "DEVICE-03", "DEVICE-04")
class UnknownDevicesAreForbidden(Identity):
    """A `device_id` that the user does not have is refused with 403 M_FORBIDDEN."""

    def device(self, call: Call, user_id: str) -> str | None:
        try:
            return super().device(call, user_id)
        except MatrixError as error:
            raise MatrixError(403, "M_FORBIDDEN", error.error) from error


@defect("DEVICE-02", "DEVICE-03", "DEVICE-04")
class DevicesAreNotLookedForInSyncsAndRooms(Identity):
    """A `device_id` that the user does not have counts as none in syncs and in what is done in rooms."""

    def device(self, call: Call, user_id: str) -> str | None:
        if call.path.endswith(("/sync", "/createRoom")) or "/rooms/" in call.path:
            device_id = call.query.get("device_id")
            return device_id if device_id in self.store.accounts[user_id].devices else None
        return super().device(call, user_id)


@defect("DEVICE-02")
class RemovedDevicesCanBeActedAs(_Lenient):
    """A device that was acted as once can be acted as for ever."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._used: set[tuple[str, str]] = set()

    def allows(self, call: Call, user_id: str, device_id: str) -> bool:
        if device_id in self.store.accounts[user_id].devices:
            self._used.add((user_id, device_id))
        return (user_id, device_id) in self._used


@defect("DEVICE-02")
class DevicesRemovedTogetherCanBeActedAs(Devices):
    """Devices that are deleted several at once are no longer listed, and can be acted as all the same."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._removed: set[tuple[str, str]] = set()

    def delete_several(self, call: Call) -> Any:
        user_id, devices = call.requester.user_id, self.store.accounts[call.requester.user_id].devices
        answer = super().delete_several(call)
        if call.requester.appservice is not None:
            for device_id in call.json.get("devices", ()):
                devices[device_id] = {}
                self._removed.add((user_id, device_id))
        return answer

    def devices(self, call: Call) -> JsonObject:
        listed = super().devices(call)
        removed = [device_id for user_id, device_id in self._removed if user_id == call.requester.user_id]
        return {"devices": [each for each in listed["devices"] if each["device_id"] not in removed]}


@defect("DEVICE-02")
class TheBeginningOfADeviceIdWillDo(_Lenient):
    """The beginning of the ID of a user's device stands for the device."""

    def allows(self, call: Call, user_id: str, device_id: str) -> bool:
        return any(each.startswith(device_id) for each in self.store.accounts[user_id].devices)


@defect("DEVICE-02")
class DeviceIdsAreTrimmed(_Lenient):
    """Blanks around a `device_id` are dropped."""

    def allows(self, call: Call, user_id: str, device_id: str) -> bool:
        return device_id.strip() in self.store.accounts[user_id].devices


@defect("DEVICE-03", "DEVICE-04")
class AnybodysDeviceWillDo(_Lenient):
    """A device of any user can be acted as."""

    def allows(self, call: Call, user_id: str, device_id: str) -> bool:
        return bool(self.owners(device_id))


@defect("DEVICE-03", "DEVICE-04")
class DevicesAreTheAppservices(_Lenient):
    """A device of any of the appservice's users can be acted as."""

    def allows(self, call: Call, user_id: str, device_id: str) -> bool:
        appservice = self.appservice(self.token(call) or "")
        namespaces = self.hs.namespaces
        return any(appservice and namespaces.is_own_user(appservice, each) for each in self.owners(device_id))


@defect("DEVICE-03")
class GhostsHaveTheDevicesOfHumans(_Lenient):
    """A ghost can be acted as with the device of a human."""

    def allows(self, call: Call, user_id: str, device_id: str) -> bool:
        return any(self.store.accounts[each].appservice is None for each in self.owners(device_id))


@defect("DEVICE-03")
class GhostsHaveTheDevicesOfTheSender(_Lenient):
    """A ghost can be acted as with a device of its appservice's sender."""

    def allows(self, call: Call, user_id: str, device_id: str) -> bool:
        appservice = self.appservice(self.token(call) or "")
        return appservice is not None and self.hs.user_id(appservice.sender_localpart) in self.owners(device_id)


@defect("DEVICE-04")
class TheDeviceTellsTheUser(Identity):
    """Without `user_id`, the appservice acts as the ghost whose device it is."""

    def asserted(self, call: Call, appservice: Registration) -> Requester:
        device_id = call.query.get("device_id")
        for user_id, account in self.store.accounts.items():
            own = account.appservice == appservice.id and device_id in account.devices
            if own and user_id != self.hs.user_id(appservice.sender_localpart):
                call.query.setdefault("user_id", user_id)
        return super().asserted(call, appservice)


@defect("DEVICE-04")
class TheSenderHasAnyDevice(_Lenient):
    """Without `user_id` the device is not looked for."""

    def allows(self, call: Call, user_id: str, device_id: str) -> bool:
        return "user_id" not in call.query


@defect("DEVICE-04")
class DevicesOfTheSenderAreServerErrors(Identity):
    """Without `user_id`, any `device_id` leads to a server error."""

    def device(self, call: Call, user_id: str) -> str | None:
        if "device_id" in call.query and "user_id" not in call.query:
            raise MatrixError(500, "M_UNKNOWN", "internal error: not a text")
        return super().device(call, user_id)


@defect("DEVICE-04")
class SendersShareTheirDevices(_Lenient):
    """A sender user can be acted as with the device of another appservice's sender."""

    def allows(self, call: Call, user_id: str, device_id: str) -> bool:
        senders = [self.hs.user_id(each.sender_localpart) for each in self.hs.appservices]
        return user_id in senders and any(each in senders for each in self.owners(device_id))


@defect("DEVICE-05")
class KeysNeedNoDevice(Keys):
    """Without `device_id`, keys are kept for a device that does not exist."""

    def device(self, call: Call) -> str:
        return call.requester.device_id or "dummy"


@defect("DEVICE-05")
class TheOnlyDeviceIsMeant(Keys):
    """Without `device_id`, keys are kept for the user's device if there is only one."""

    def device(self, call: Call) -> str:
        devices = list(self.store.accounts[call.requester.user_id].devices)
        if call.requester.device_id is None and len(devices) == 1:
            return devices[0]
        return super().device(call)


class _Creation(Devices):
    """The creation of devices goes otherwise."""

    def put(self, call: Call, device_id: str) -> JsonObject:
        there = device_id in self.store.accounts[call.requester.user_id].devices
        if there or call.requester.appservice is None:
            return super().put(call, device_id)
        return self.create(call, device_id)

    def create(self, call: Call, device_id: str) -> JsonObject:
        """Create a device that is not there, by an appservice."""
        return super().put(call, device_id)


@defect("DEVICE-06")
class NewDevicesAreAnsweredWith200(_Creation):
    """The creation of a device is answered with 200."""

    def create(self, call: Call, device_id: str) -> JsonObject:
        return dict(super().create(call, device_id))


@defect("DEVICE-06")
class AppservicesCannotCreateDevices(Devices):
    """PUT for a device that is not there is answered with 404, for appservices too."""

    def may_create(self, call: Call) -> bool:
        return False


@defect("DEVICE-06")
class OnlyGhostsGetDevices(Devices):
    """No devices of the sender user can be created."""

    def may_create(self, call: Call) -> bool:
        appservice = call.requester.appservice
        return appservice is not None and call.requester.user_id != self.hs.user_id(appservice.sender_localpart)


@defect("DEVICE-06")
class NewDevicesNeedAName(_Creation):
    """A device cannot be created without a `display_name`."""

    def create(self, call: Call, device_id: str) -> JsonObject:
        call.text("display_name")
        return super().create(call, device_id)


@defect("DEVICE-06")
class ADeviceThatComesBackIsNoNewOne(_Creation):
    """The creation of a device that was there before is answered with 200."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._before: set[tuple[str, str]] = set()

    def create(self, call: Call, device_id: str) -> JsonObject:
        answer, key = super().create(call, device_id), (call.requester.user_id, device_id)
        if key in self._before:
            return dict(answer)
        self._before.add(key)
        return answer


@defect("DEVICE-06")
class TheDeviceActedAsIsUpdated(Devices):
    """PUT as a device updates that device, whichever the path names."""

    def put(self, call: Call, device_id: str) -> JsonObject:
        return super().put(call, call.query.get("device_id", device_id))


@defect("DEVICE-07")
class UpdatesAreAnsweredWith201(Devices):
    """Every PUT of an appservice is answered with 201."""

    def put(self, call: Call, device_id: str) -> JsonObject:
        answer = super().put(call, device_id)
        return answer if call.requester.appservice is None else Created(answer)


@defect("DEVICE-07")
class DevicesKeepTheirFirstName(Devices):
    """An update of a device by an appservice changes nothing."""

    def put(self, call: Call, device_id: str) -> JsonObject:
        there = device_id in self.store.accounts[call.requester.user_id].devices
        return {} if there and call.requester.appservice is not None else super().put(call, device_id)


@defect("DEVICE-07")
class DevicesOfLoginsAreNotTheAppservices(Devices):
    """A device that a login has made cannot be renamed by the appservice."""

    def put(self, call: Call, device_id: str) -> JsonObject:
        logged_in = (call.requester.user_id, device_id) in self.store.tokens.values()
        if logged_in and call.requester.appservice is not None:
            raise MatrixError(404, "M_NOT_FOUND", "the appservice has no such device")
        return super().put(call, device_id)


@defect("DEVICE-08")
class NamesEndWithTheNextUpdate(Devices):
    """An update without `display_name` takes the device's name away."""

    def put(self, call: Call, device_id: str) -> JsonObject:
        answer = super().put(call, device_id)
        if "display_name" not in call.json:
            self.store.put_device(call.requester.user_id, device_id, {"display_name": None})
        return answer


@defect("DEVICE-08")
class UnknownKeysTakeTheNameAway(Devices):
    """An update with keys that are not known, and without `display_name`, takes the device's name away."""

    def put(self, call: Call, device_id: str) -> JsonObject:
        answer = super().put(call, device_id)
        if call.json and "display_name" not in call.json:
            self.store.put_device(call.requester.user_id, device_id, {"display_name": ""})
        return answer


@defect("DEVICE-08")
class TheSenderHasTheDevicesOfAll(Devices):
    """The list of the sender user's devices has those of all of the appservice's ghosts."""

    def devices(self, call: Call) -> JsonObject:
        listed, appservice = super().devices(call), call.requester.appservice
        if appservice is not None and call.requester.user_id == self.hs.user_id(appservice.sender_localpart):
            accounts = [each for each in self.store.accounts.values() if each.appservice == appservice.id]
            listed["devices"] = [
                {"device_id": device_id, **fields}
                for account in accounts
                for device_id, fields in account.devices.items()
            ]
        return listed


@defect("DEVICE-08")
class DeviceIdsArePathsDecodedTwice(Devices):
    """The device ID in a path is percent-decoded once too often when the device is created."""

    def put(self, call: Call, device_id: str) -> JsonObject:
        return super().put(call, unquote(device_id))


class _Clients(Devices):
    """PUT of clients that are no appservices, for devices that are not there, goes otherwise."""

    def put(self, call: Call, device_id: str) -> JsonObject:
        there = device_id in self.store.accounts[call.requester.user_id].devices
        if there or call.requester.appservice is not None:
            return super().put(call, device_id)
        return self.unknown(call, device_id)

    def unknown(self, call: Call, device_id: str) -> JsonObject:
        """The device is not there."""
        raise NotImplementedError

    def kept(self, call: Call, device_id: str) -> JsonObject:
        """Make it all the same."""
        self.store.put_device(call.requester.user_id, device_id, {})
        return Created()


@defect("DEVICE-09")
class AnybodyCreatesDevices(_Clients):
    """Every client may create devices."""

    def unknown(self, call: Call, device_id: str) -> JsonObject:
        return self.kept(call, device_id)


@defect("DEVICE-09")
class GhostsCreateDevicesThemselves(_Clients):
    """A ghost's own token may create devices."""

    def unknown(self, call: Call, device_id: str) -> JsonObject:
        if self.store.accounts[call.requester.user_id].appservice is not None:
            return self.kept(call, device_id)
        return super(_Clients, self).put(call, device_id)


@defect("DEVICE-09")
class RefusedDevicesAreCreated(_Clients):
    """A client that may not create a device is answered 404, and has the device."""

    def unknown(self, call: Call, device_id: str) -> JsonObject:
        self.kept(call, device_id)
        raise MatrixError(404, "M_NOT_FOUND", "there is no such device")


@defect("DEVICE-09")
class WhatSomebodyHasMayBeHad(_Clients):
    """A client may create a device whose ID some other user has."""

    def unknown(self, call: Call, device_id: str) -> JsonObject:
        if any(device_id in account.devices for account in self.store.accounts.values()):
            return self.kept(call, device_id)
        return super(_Clients, self).put(call, device_id)


@defect("DEVICE-09")
class EmptyUpdatesAlwaysSucceed(_Clients):
    """An update without a name is answered with 200 whether or not the device is there."""

    def unknown(self, call: Call, device_id: str) -> JsonObject:
        return {} if "display_name" not in call.json else super(_Clients, self).put(call, device_id)


@defect("DEVICE-10")
class DeletingAsksAppservicesForAPassword(Devices):
    """Deleting a device takes interactive authentication, for appservices too."""

    def unauthorised(self, call: Call) -> Answer | None:
        return super().unauthorised(call) if _is_bulk(call) else _authentication(self, call)


@defect("DEVICE-10", also=("DEVICE-13",))
class TheSecondDeletionAsksForAPassword(Devices):
    """An appservice deletes one device of each user without interactive authentication, and no other."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._once: set[str] = set()

    def unauthorised(self, call: Call) -> Answer | None:
        user_id = call.requester.user_id
        if _is_bulk(call) or user_id not in self._once:
            self._once.update([] if _is_bulk(call) else [user_id])
            return super().unauthorised(call)
        return _authentication(self, call)


@defect("DEVICE-10")
class LoggedInDevicesAskForAPassword(Devices):
    """Deleting a device that has a token takes interactive authentication, for appservices too."""

    def unauthorised(self, call: Call) -> Answer | None:
        devices = {device_id for user_id, device_id in self.store.tokens.values() if user_id == call.requester.user_id}
        if any(call.path.endswith(f"/devices/{device_id}") for device_id in devices):
            return _authentication(self, call)
        return super().unauthorised(call)


@defect("DEVICE-10", also=("DEVICE-14",))
class DeletingOneDeletesAll(Devices):
    """With one device all of the user's are deleted."""

    def delete(self, call: Call, device_id: str) -> Any:
        answer = super().delete(call, device_id)
        if call.requester.appservice is not None:
            for each in list(self.store.accounts[call.requester.user_id].devices):
                self.delete_one(call.requester.user_id, each)
        return answer


@defect("DEVICE-10")
class TheDeviceActedAsIsDeleted(Devices):
    """DELETE as a device deletes that device, whichever the path names."""

    def delete(self, call: Call, device_id: str) -> Any:
        return super().delete(call, call.query.get("device_id", device_id))


@defect("DEVICE-10", "DEVICE-11")
class DevicesActedAsAskForAPassword(Devices):
    """Deleting devices takes interactive authentication for appservices that act as a device."""

    def unauthorised(self, call: Call) -> Answer | None:
        return _authentication(self, call) if call.requester.device_id is not None else super().unauthorised(call)


@defect("DEVICE-11")
class DeletingSeveralAsksForAPassword(Devices):
    """Deleting several devices takes interactive authentication, for appservices too."""

    def unauthorised(self, call: Call) -> Answer | None:
        return _authentication(self, call) if _is_bulk(call) else super().unauthorised(call)


class _Several(Devices):
    """Of the devices to be deleted at once, not all are."""

    def delete_several(self, call: Call) -> Any:
        if call.requester.appservice is not None:
            user_id = call.requester.user_id
            for device_id in self.chosen(
                list(call.json.get("devices", ())), list(self.store.accounts[user_id].devices)
            ):
                self.delete_one(user_id, device_id)
            return {}
        return super().delete_several(call)

    def chosen(self, named: list[str], devices: list[str]) -> list[str]:
        """Which of a user's devices are deleted."""
        raise NotImplementedError


@defect("DEVICE-11")
class TheLastOfSeveralDevicesStays(_Several):
    """Of several devices to be deleted the last is left."""

    def chosen(self, named: list[str], devices: list[str]) -> list[str]:
        return named[:-1]


@defect("DEVICE-11")
class DeletingSeveralEndsWithAnUnknownOne(_Several):
    """Of several devices to be deleted, those named after one that does not exist are left."""

    def chosen(self, named: list[str], devices: list[str]) -> list[str]:
        unknown = next((place for place, each in enumerate(named) if each not in devices), len(named))
        return named[:unknown]


@defect("DEVICE-11", also=("DEVICE-14",))
class DeletingSeveralDeletesAll(_Several):
    """With several devices all of the user's are deleted."""

    def chosen(self, named: list[str], devices: list[str]) -> list[str]:
        return devices


@defect("DEVICE-10", "DEVICE-11")
class DeletionForOpenGhostsTakesAuthentication(Devices):
    """Deleting devices of ghosts that are in no exclusive namespace takes interactive authentication."""

    def unauthorised(self, call: Call) -> Answer | None:
        appservice, user_id = call.requester.appservice, call.requester.user_id
        namespaces = self.hs.namespaces
        if appservice is None or namespaces.is_sender(appservice, user_id):
            return super().unauthorised(call)
        return None if namespaces.claims(appservice, "users", user_id) else _authentication(self, call)


@defect("DEVICE-12")
class NobodyIsAskedForAPassword(Devices):
    """Nobody has to authenticate interactively to delete devices."""

    def unauthorised(self, call: Call) -> Answer | None:
        return None


@defect("DEVICE-12")
class HumansDeleteSeveralDevicesUnasked(Devices):
    """Nobody has to authenticate interactively to delete several devices at once."""

    def unauthorised(self, call: Call) -> Answer | None:
        return None if _is_bulk(call) else super().unauthorised(call)


@defect("DEVICE-12")
class TheDeviceIsGoneBeforeThePassword(Devices):
    """A device is deleted while its human is asked for interactive authentication."""

    def delete(self, call: Call, device_id: str) -> Any:
        answer = super().delete(call, device_id)
        if call.requester.appservice is None:
            self.store.drop_device(call.requester.user_id, device_id)
        return answer


class _Unknown(Devices):
    """Deleting a device that is not there goes otherwise."""

    def delete(self, call: Call, device_id: str) -> Any:
        if call.requester.appservice is None or device_id in self.store.accounts[call.requester.user_id].devices:
            return super().delete(call, device_id)
        return self.unknown(call, device_id)

    def unknown(self, call: Call, device_id: str) -> Any:
        """The device is not there."""
        raise NotImplementedError


@defect("DEVICE-13")
class UnknownDevicesAreServerErrors(_Unknown):
    """Deleting a device that does not exist leads to a server error."""

    def unknown(self, call: Call, device_id: str) -> Any:
        raise MatrixError(500, "M_UNKNOWN", "internal error: no row was deleted")


@defect("DEVICE-13")
class UnknownDevicesAskForAPassword(_Unknown):
    """Deleting a device that does not exist takes interactive authentication, for appservices too."""

    def unknown(self, call: Call, device_id: str) -> Any:
        return _authentication(self, call)


@defect("DEVICE-13")
class TheDeviceOfAnotherIsDeleted(_Unknown):
    """Deleting a device that the user does not have deletes that of whoever has it."""

    def unknown(self, call: Call, device_id: str) -> Any:
        for user_id in list(self.store.accounts):
            self.delete_one(user_id, device_id)
        return {}


class _Tokens(Devices):
    """The tokens of devices that an appservice deletes are treated otherwise."""

    def _gone(self, call: Call, device_ids: list[str]) -> JsonObject:
        if call.requester.appservice is None:
            return super()._gone(call, device_ids)
        for device_id in device_ids:
            if self.ends(call):
                self.store.drop_tokens(call.requester.user_id, self.of(device_id))
            self.store.drop_device(call.requester.user_id, device_id)
        return {}

    def ends(self, call: Call) -> bool:
        """Whether tokens end at all."""
        return True

    def of(self, device_id: str) -> str | None:
        """The device whose tokens end; None: all of the user's."""
        return device_id


@defect("DEVICE-14")
class TokensOutliveTheirDevice(_Tokens):
    """The tokens of a device that an appservice deletes stay valid."""

    def ends(self, call: Call) -> bool:
        return False


@defect("DEVICE-14")
class TokensOutliveSeveralDevices(_Tokens):
    """The tokens of devices that an appservice deletes several at once stay valid."""

    def ends(self, call: Call) -> bool:
        return not _is_bulk(call)


@defect("DEVICE-14", also=("DEVICE-16",))
class AllTokensEndWithADevice(_Tokens):
    """With a device that an appservice deletes, all tokens of its user end."""

    def of(self, device_id: str) -> str | None:
        return None


@defect("DEVICE-15")
class KeysAreForClientsOnly(Keys):
    """Keys cannot be uploaded with an `as_token`, whatever `device_id` says."""

    def device(self, call: Call) -> str:
        if call.requester.appservice is not None:
            raise MatrixError(400, "M_INVALID_PARAM", "appservices have no devices")
        return super().device(call)


@defect("DEVICE-15")
class KeysAreTheUsers(Keys):
    """All devices of a ghost share their keys."""

    def device(self, call: Call) -> str:
        device_id = super().device(call)
        return device_id if call.requester.appservice is None else "shared"


class _Counts(Keys):
    """The counts of one-time keys are told otherwise."""

    def upload(self, call: Call) -> JsonObject:
        counts = super().upload(call)["one_time_key_counts"]
        return {"one_time_key_counts": {algorithm: self.told(count) for algorithm, count in counts.items()}}

    def told(self, count: int) -> Any:
        """A count as it is told."""
        raise NotImplementedError


@defect("DEVICE-15", also=("DEVICE-05",))
class CountsOfKeysAreText(_Counts):
    """The counts of one-time keys are strings."""

    def told(self, count: int) -> Any:
        return str(count)


@defect("DEVICE-16")
class DeviceIdsAreGlobal(_Creation):
    """A device ID that any user has cannot be had by another."""

    def create(self, call: Call, device_id: str) -> JsonObject:
        if any(device_id in account.devices for account in self.store.accounts.values()):
            raise MatrixError(400, "M_INVALID_PARAM", "there is such a device already")
        return super().create(call, device_id)


@defect("DEVICE-16")
class ADeviceIsNewOnce(_Creation):
    """A device is taken for known, and answered with 200, when any other user has one of that ID."""

    def create(self, call: Call, device_id: str) -> JsonObject:
        known = any(device_id in account.devices for account in self.store.accounts.values())
        answer = super().create(call, device_id)
        return dict(answer) if known else answer


class _Everybody(Devices):
    """Something is done to all who have a device of the same ID."""

    def everybody(self, device_id: str, act: Callable[[str, str], None]) -> None:
        """Do something with all devices of that ID."""
        for user_id, account in list(self.store.accounts.items()):
            if device_id in account.devices:
                act(user_id, device_id)


@defect("DEVICE-16", also=("DEVICE-13",))
class DevicesOfTheSameIdAreDeletedTogether(_Everybody):
    """With a device those of other users that have its ID are deleted."""

    def delete_one(self, user_id: str, device_id: str) -> None:
        super().delete_one(user_id, device_id)
        self.everybody(device_id, super().delete_one)


@defect("DEVICE-16")
class TokensOfTheSameIdEndTogether(_Everybody):
    """With a device the tokens end of those devices of other users that have its ID."""

    def delete_one(self, user_id: str, device_id: str) -> None:
        super().delete_one(user_id, device_id)
        self.everybody(device_id, self.store.drop_tokens)


@defect("DEVICE-16")
class DevicesOfTheSameIdShareTheirName(_Everybody):
    """A device is named for all who have one of its ID."""

    def put(self, call: Call, device_id: str) -> JsonObject:
        answer, name = super().put(call, device_id), call.json.get("display_name")
        if name is not None:
            self.everybody(
                device_id, lambda user_id, each: self.store.put_device(user_id, each, {"display_name": name})
            )
        return answer


class _Limited(_Creation):
    """Eight devices of a user may be created in a row."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._made: dict[str, int] = {}

    def create(self, call: Call, device_id: str) -> JsonObject:
        made = self._made[call.requester.user_id] = self._made.get(call.requester.user_id, 0) + 1
        if made == 9:
            raise MatrixError(429, "M_LIMIT_EXCEEDED", "too many devices", {"retry_after_ms": 100})
        if made > 9:
            self.after_the_limit()
        return super().create(call, device_id)

    def after_the_limit(self) -> None:
        """What happens when the time told is over."""
        raise NotImplementedError


@defect("DEVICE-17")
class ALimitOnDevicesIsForGood(_Limited):
    """After eight devices a user gets no more, although a 429 said when it would."""

    def after_the_limit(self) -> None:
        raise MatrixError(403, "M_FORBIDDEN", "too many devices")
