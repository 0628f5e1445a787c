"""Registration files: written so that any homeserver reads them, read with one clear sentence for what is wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from conformance.appservice.registration import BadRegistration, Namespace, Registration, read, write

CODES = {"first": "A", "second": "B"}


def registration(name: str = "first", **fields: Any) -> Registration:
    """A registration with everything that a file may hold."""
    content: dict[str, Any] = {
        "code": CODES.get(name, "Z"),
        "id": name,
        "url": "http://127.0.0.1:9000/base/",
        "as_token": f"as {name}",
        "hs_token": f"hs {name}",
        "sender_localpart": "bot",
        "users": (Namespace(r"@a\.b-.*", True), Namespace("@c-.*", False)),
        "aliases": (),
        "extra": {"rate_limited": False, "protocols": ["p q"]},
    }
    return Registration(**{**content, **fields})


def put(directory: Path, name: str, content: object) -> None:
    (directory / name).write_text(json.dumps(content), encoding="utf-8")


def test_what_is_written_is_read_back_the_same(tmp_path: Path) -> None:
    given = [registration(), registration("second", url=None, users=None, rooms=(Namespace("!.*", False),))]
    write(tmp_path / "new" / "directory", given)
    assert read(tmp_path / "new" / "directory", CODES) == given


def test_a_file_holds_exactly_what_the_specification_names(tmp_path: Path) -> None:
    (path,) = write(tmp_path, [registration()])
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "id": "first",
        "url": "http://127.0.0.1:9000/base/",
        "as_token": "as first",
        "hs_token": "hs first",
        "sender_localpart": "bot",
        "namespaces": {
            "users": [{"exclusive": True, "regex": "@a\\.b-.*"}, {"exclusive": False, "regex": "@c-.*"}],
            "aliases": [],
        },
        "rate_limited": False,
        "protocols": ["p q"],
    }


def test_the_parts_of_the_url_are_known() -> None:
    assert registration().port == 9000
    assert registration().base_path == "/base"
    assert registration(url=None).port is None
    assert registration(url=None).base_path == ""
    assert registration().protocols == ("p q",)
    assert registration(extra={}).protocols == ()


def test_a_namespace_covers_whole_ids() -> None:
    assert Namespace(r"@a\.b-.*", True).matches("@a.b-c:hs")
    assert not Namespace(r"@a\.b-.*", True).matches("x@a.b-c:hs")
    assert not Namespace(r"@a\.b-", True).matches("@a.b-c:hs")


def test_registrations_come_in_the_order_of_the_fleet_not_of_the_files(tmp_path: Path) -> None:
    put(tmp_path, "1.yaml", registration("second").as_json())
    put(tmp_path, "2.json", registration("first").as_json())
    assert [each.code for each in read(tmp_path, CODES)] == ["A", "B"]


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path, [registration()])
    (tmp_path / "bridge.yaml").write_text("id: irc\nurl: null\n", encoding="utf-8")
    (tmp_path / "latin.yml").write_bytes(b"id: \xff\n")
    for number, content in enumerate(({"id": "telegram"}, [1], "text", {"id": ["first"]}, {"id": None}, {})):
        put(tmp_path, f"{number}.yaml", content)
    assert [each.id for each in read(tmp_path, CODES)] == ["first"]


def refusal(directory: Path) -> str:
    with pytest.raises(BadRegistration) as error:
        read(directory, CODES)
    return str(error.value)


def test_a_directory_that_is_none_is_said_with_what_to_do(tmp_path: Path) -> None:
    said = refusal(tmp_path / "nowhere")
    assert "is not a directory" in said
    assert "as-conformance registrations" in said


def test_a_directory_without_a_file_of_the_fleet_is_said_with_what_to_do(tmp_path: Path) -> None:
    assert "holds no registration of the fleet" in refusal(tmp_path)


def test_an_id_in_two_files_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "1.yaml", registration().as_json())
    put(tmp_path, "2.yaml", registration().as_json())
    assert re.search("2.yaml repeats the id 'first'", refusal(tmp_path))


def test_an_own_file_that_somebody_rewrote_is_said(tmp_path: Path) -> None:
    (tmp_path / "as-conformance-a.yaml").write_text("id: first\n", encoding="utf-8")
    assert "as-conformance-a.yaml is not JSON any more" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"url": 7}, "url"),
        ({"url": "http://127.0.0.1:99999"}, "url"),
        ({"url": "http://127.0.0.1:eighty"}, "url"),
        ({"url": "http://[::1"}, "url"),
        ({"namespaces": []}, "namespaces"),
        ({"namespaces": {"users": [{"regex": "@a"}]}}, "exclusive"),
        ({"as_token": None}, "as_token"),
    ],
)
def test_a_file_that_is_no_registration_is_refused_saying_where(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    put(tmp_path, "a.yaml", registration().as_json() | change)
    refused = refusal(tmp_path)
    assert "a.yaml is no valid registration: " in refused
    assert said in refused


def test_a_missing_key_is_said(tmp_path: Path) -> None:
    content = registration().as_json()
    del content["hs_token"]
    put(tmp_path, "a.yaml", content)
    assert '"hs_token" is missing' in refusal(tmp_path)


def test_no_token_stands_in_a_complaint(tmp_path: Path) -> None:
    put(tmp_path, "a.yaml", registration().as_json() | {"hs_token": ["s3cret"]})
    assert "s3cret" not in refusal(tmp_path)


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(BadRegistration, match="cannot write registration files"):
        write(tmp_path / "file" / "below", [registration()])
