"""Devices and their keys (CS: Device management, End-to-end encryption; AS: Device management, since v1.17)."""

from __future__ import annotations

from typing import Any

from conformance.reference.accounts import BY_PASSWORD
from conformance.reference.policy import MatrixError, Policy, endpoint
from conformance.reference.store import JsonObject
from conformance.reference.web import Answer, Call, Created

#: Cross-signing keys by the name they have in requests.
_SIGNING_KEYS = {"master_key": "master", "self_signing_key": "self_signing", "user_signing_key": "user_signing"}


class Devices(Policy):
    """Who makes and deletes devices, and how."""

    @endpoint("GET", "/devices")
    def devices(self, call: Call) -> JsonObject:
        """The user's devices."""
        devices = self.store.accounts[call.requester.user_id].devices
        return {"devices": [{"device_id": device_id, **fields} for device_id, fields in devices.items()]}

    @endpoint("GET", "/devices/<device_id>")
    def device(self, call: Call, device_id: str) -> JsonObject:
        """One device."""
        devices = self.store.accounts[call.requester.user_id].devices
        if device_id not in devices:
            raise MatrixError(404, "M_NOT_FOUND", "there is no such device")
        return {"device_id": device_id, **devices[device_id]}

    @endpoint("PUT", "/devices/<device_id>")
    def put(self, call: Call, device_id: str) -> JsonObject:
        """Change a device: 200; an appservice makes one that is not there: 201."""
        user_id = call.requester.user_id
        there = device_id in self.store.accounts[user_id].devices
        if not there and not self.may_create(call):
            raise MatrixError(404, "M_NOT_FOUND", "there is no such device")
        name = call.json.get("display_name")
        self.store.put_device(user_id, device_id, {"display_name": name} if isinstance(name, str) else {})
        return {} if there else Created()

    def may_create(self, call: Call) -> bool:
        """Whether the requester may make devices: appservices only, and not by a ghost's own token."""
        return call.requester.appservice is not None

    @endpoint("DELETE", "/devices/<device_id>")
    def delete(self, call: Call, device_id: str) -> Any:
        """Delete a device; one that is gone already is no error."""
        return self.unauthorised(call) or self._gone(call, [device_id])

    @endpoint("POST", "/delete_devices")
    def delete_several(self, call: Call) -> Any:
        """Delete several devices."""
        return self.unauthorised(call) or self._gone(call, [str(each) for each in call.json.get("devices", ())])

    def unauthorised(self, call: Call) -> Answer | None:
        """What has to be done first: interactive authentication, but for appservices."""
        if call.requester.appservice is not None:
            return None
        return self.hs.interaction.required(call, [BY_PASSWORD], call.requester.user_id)

    def _gone(self, call: Call, device_ids: list[str]) -> JsonObject:
        for device_id in device_ids:
            self.delete_one(call.requester.user_id, device_id)
        return {}

    def delete_one(self, user_id: str, device_id: str) -> None:
        """Delete a device and end its tokens."""
        self.store.drop_tokens(user_id, device_id)
        self.store.drop_device(user_id, device_id)


class Keys(Policy):
    """Keys are kept and handed out; nobody checks signatures here."""

    @endpoint("POST", "/keys/upload")
    def upload(self, call: Call) -> JsonObject:
        """Keep keys of the device that calls.

        :raises MatrixError: 400: an appservice names no device.
        """
        device_id = self.device(call)
        one_time = call.json.get("one_time_keys")
        self.store.put_keys(
            call.requester.user_id,
            device_id,
            call.json.get("device_keys"),
            one_time if isinstance(one_time, dict) else {},
        )
        counts: dict[str, int] = {}
        for name in self.store.accounts[call.requester.user_id].one_time_keys[device_id]:
            algorithm = name.partition(":")[0]
            counts[algorithm] = counts.get(algorithm, 0) + 1
        return {"one_time_key_counts": counts}

    def device(self, call: Call) -> str:
        """The device whose keys these are."""
        if call.requester.device_id is None:
            raise MatrixError(400, "M_INVALID_PARAM", "keys are a device's, and no device_id was given")
        return call.requester.device_id

    @endpoint("POST", "/keys/query")
    def query(self, call: Call) -> JsonObject:
        """The keys of users."""
        asked = call.json.get("device_keys")
        answer: JsonObject = {"device_keys": {}, "failures": {}, "master_keys": {}, "self_signing_keys": {}}
        for user_id in asked if isinstance(asked, dict) else ():
            account = self.store.accounts.get(user_id)
            if account is None:
                continue
            answer["device_keys"][user_id] = account.keys
            for use in ("master", "self_signing"):
                if use in account.signing_keys:
                    answer[f"{use}_keys"][user_id] = account.signing_keys[use]
        return answer

    @endpoint("POST", "/keys/device_signing/upload")
    def upload_signing_keys(self, call: Call) -> Any:
        """Keep cross-signing keys of the user who calls."""
        keys = {use: call.json[name] for name, use in _SIGNING_KEYS.items() if isinstance(call.json.get(name), dict)}
        self.check_owner(call, keys)
        unfinished = self.unauthorised(call, keys)
        if unfinished is not None:
            return unfinished
        self.store.put_signing_keys(call.requester.user_id, keys)
        return {}

    def check_owner(self, call: Call, keys: dict[str, JsonObject]) -> None:
        """The keys must be the caller's own.

        :raises MatrixError: 403 M_FORBIDDEN.
        """
        for key in keys.values():
            if key.get("user_id") != call.requester.user_id:
                raise MatrixError(403, "M_FORBIDDEN", "those are another user's keys")

    def unauthorised(self, call: Call, keys: dict[str, JsonObject]) -> Answer | None:
        """Interactive authentication for replacing a key, but never for appservices (since v1.17)."""
        if call.requester.appservice is not None:
            return None
        before = self.store.accounts[call.requester.user_id].signing_keys
        if not before or all(before.get(use) == key for use, key in keys.items()):
            return None
        return self.hs.interaction.required(call, [BY_PASSWORD], call.requester.user_id)
