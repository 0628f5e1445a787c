"""Keys as clients make them (CS: End-to-end encryption; Appendices: Signing JSON).

They are genuine: homeservers may refuse what is no point of the curve, or whose signature is wrong.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

import nacl.signing

#: The cross-signing keys of a user, as an upload names them.
CROSS_SIGNING = ("master_key", "self_signing_key", "user_signing_key")


def unpadded(data: bytes) -> str:
    """Bytes as unpadded Base64, as keys and signatures are written."""
    return base64.b64encode(data).decode().rstrip("=")


def canonical(content: dict[str, Any]) -> bytes:
    """Canonical JSON: what is signed of an object, which is all but its signatures and `unsigned`."""
    signed = {key: value for key, value in content.items() if key not in ("signatures", "unsigned")}
    return json.dumps(signed, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


class Ed25519:
    """A key pair, made of a seed of 32 bytes, or by chance."""

    def __init__(self, seed: bytes | None = None) -> None:
        self._private = nacl.signing.SigningKey.generate() if seed is None else nacl.signing.SigningKey(seed)
        #: The public key.
        self.public = unpadded(bytes(self._private.verify_key))

    def signed(self, content: dict[str, Any], owner: str, key_id: str | None = None) -> dict[str, Any]:
        """An object with the signature of this key beside those that it has.

        :param owner: whose key it is.
        :param key_id: what follows ``ed25519:`` in the name of the key: a device ID; without it the public key itself.
        """
        name = f"ed25519:{self.public if key_id is None else key_id}"
        signature = unpadded(self._private.sign(canonical(content)).signature)
        signatures = content.get("signatures", {})
        return {**content, "signatures": {**signatures, owner: {**signatures.get(owner, {}), name: signature}}}


class CrossSigningKeys:
    """New cross-signing keys of a user, the two others signed by the master key.

    :param master: the master key that the user has already; without it a new one.
    """

    def __init__(self, owner: str, master: Ed25519 | None = None) -> None:
        self.owner = owner
        self.master = master or Ed25519()
        self.self_signing = Ed25519()
        self._user_signing = Ed25519()

    def body(self, names: Iterable[str] = CROSS_SIGNING) -> dict[str, Any]:
        """The body of an upload of these keys, all or some, without authentication."""
        keys = dict(zip(CROSS_SIGNING, (self.master, self.self_signing, self._user_signing), strict=True))
        return {name: self._described(name, keys[name]) for name in names}

    def _described(self, name: str, key: Ed25519) -> dict[str, Any]:
        usage, public = name.removesuffix("_key"), {f"ed25519:{key.public}": key.public}
        described = {"user_id": self.owner, "usage": [usage], "keys": public}
        return described if key is self.master else self.master.signed(described, self.owner)
