"""Keys and signatures, against the specification's own example (Appendices: Cryptographic Test Vectors)."""

from __future__ import annotations

import base64
from typing import Any

import nacl.signing
import pytest

from conformance.homeserver.keys import CROSS_SIGNING, CrossSigningKeys, Ed25519, canonical

SEED = base64.b64decode("YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1=")


@pytest.mark.parametrize(
    ("content", "signature"),
    [
        ({}, "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"),
        (
            {"one": 1, "two": "Two"},
            "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw",
        ),
    ],
)
def test_objects_are_signed_as_in_the_specification(content: dict[str, Any], signature: str) -> None:
    assert Ed25519(SEED).signed(content, "domain", "1") == {
        **content,
        "signatures": {"domain": {"ed25519:1": signature}},
    }


def test_signatures_and_unsigned_are_not_signed_and_other_signatures_stay() -> None:
    before: dict[str, Any] = {"b": "é", "a": 1, "unsigned": {"age": 1}, "signatures": {"@x:y": {"ed25519:0": "first"}}}
    assert canonical(before) == '{"a":1,"b":"é"}'.encode()
    after = Ed25519().signed(before, "@x:y", "1")
    assert set(after["signatures"]["@x:y"]) == {"ed25519:0", "ed25519:1"}
    assert set(before["signatures"]["@x:y"]) == {"ed25519:0"}


def test_the_master_key_signs_the_others() -> None:
    keys = CrossSigningKeys("@x:y")
    body = keys.body()
    assert tuple(body) == CROSS_SIGNING
    assert [each["usage"] for each in body.values()] == [["master"], ["self_signing"], ["user_signing"]]
    assert "signatures" not in body["master_key"]
    verifier = nacl.signing.VerifyKey(base64.b64decode(keys.master.public + "="))
    for name in CROSS_SIGNING[1:]:
        signature = body[name]["signatures"]["@x:y"][f"ed25519:{keys.master.public}"]
        verifier.verify(canonical(body[name]), base64.b64decode(signature + "=="))


def test_a_master_key_may_be_kept() -> None:
    first = CrossSigningKeys("@x:y")
    second = CrossSigningKeys("@x:y", first.master)
    assert second.body(["master_key"]) == first.body(["master_key"])
    assert second.self_signing.public != first.self_signing.public
