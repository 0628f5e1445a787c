"""Registration files: what a homeserver is told about an appservice (AS: Registration)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


class BadRegistration(Exception):
    """A registration file or directory that cannot be used; the message says which, why and what to do."""


@dataclass(frozen=True)
class Namespace:
    """An entry of a list of namespaces: the IDs it covers and whether they are the appservice's alone."""

    regex: str
    exclusive: bool

    def matches(self, identifier: str) -> bool:
        """Whether the whole ID is covered, by the plainest reading of the regular expression."""
        return re.fullmatch(self.regex, identifier) is not None


@dataclass(frozen=True)
class Registration:
    """One registration file. Namespaces that are None have no key in the file."""

    #: What the suite calls the appservice; not part of the file.
    code: str
    id: str
    url: str | None
    as_token: str
    hs_token: str
    sender_localpart: str
    users: tuple[Namespace, ...] | None = None
    aliases: tuple[Namespace, ...] | None = None
    rooms: tuple[Namespace, ...] | None = None
    #: Other keys of the file: rate_limited, receive_ephemeral, protocols.
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def port(self) -> int | None:
        """The port of the url; None when the url is null."""
        return None if self.url is None else urlsplit(self.url).port

    @property
    def base_path(self) -> str:
        """The path of the url without a final slash: what every request target must begin with."""
        return "" if self.url is None else urlsplit(self.url).path.rstrip("/")

    @property
    def protocols(self) -> tuple[str, ...]:
        """The third-party protocols that the appservice declares."""
        return tuple(self.extra.get("protocols", ()))

    def as_json(self) -> dict[str, Any]:
        """The content of the file."""
        namespaces = {
            kind: [{"exclusive": entry.exclusive, "regex": entry.regex} for entry in entries]
            for kind, entries in (("users", self.users), ("aliases", self.aliases), ("rooms", self.rooms))
            if entries is not None
        }
        return {
            "id": self.id,
            "url": self.url,
            "as_token": self.as_token,
            "hs_token": self.hs_token,
            "sender_localpart": self.sender_localpart,
            "namespaces": namespaces,
            **self.extra,
        }

    @classmethod
    def from_json(cls, code: str, content: dict[str, Any]) -> Registration:
        """The registration in a file's content; the content has been found valid before."""
        known = {"id", "url", "as_token", "hs_token", "sender_localpart", "namespaces"}
        namespaces = content["namespaces"]
        return cls(
            code=code,
            id=content["id"],
            url=content["url"],
            as_token=content["as_token"],
            hs_token=content["hs_token"],
            sender_localpart=content["sender_localpart"],
            users=_entries(namespaces.get("users")),
            aliases=_entries(namespaces.get("aliases")),
            rooms=_entries(namespaces.get("rooms")),
            extra={key: value for key, value in content.items() if key not in known},
        )


def _entries(entries: list[dict[str, Any]] | None) -> tuple[Namespace, ...] | None:
    if entries is None:
        return None
    return tuple(Namespace(entry["regex"], entry["exclusive"]) for entry in entries)


def write(directory: Path, registrations: list[Registration]) -> list[Path]:
    """Write a file for each registration, creating the directory; the files are JSON, which is YAML too, so that no
    backslash or sigil of a regex means anything to a YAML reader.

    :raises BadRegistration: the directory or a file cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        paths = []
        for registration in registrations:
            path = directory / f"as-conformance-{registration.code.lower()}.yaml"
            path.write_text(json.dumps(registration.as_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            paths.append(path)
    except OSError as error:
        raise BadRegistration(f"cannot write registration files to {directory}: {error.strerror or error}") from error
    return paths


def read(directory: Path, codes_by_id: dict[str, str]) -> list[Registration]:
    """The fleet's registrations in a directory, in the order of `codes_by_id`; files of others are left alone.

    :param codes_by_id: the `id` of each appservice the suite knows, and its code.
    :raises BadRegistration: nothing there, unreadable, not JSON, not a registration, or an id twice.
    """
    from conformance.schemas import problems

    if not directory.is_dir():
        raise BadRegistration(
            f"{directory} is not a directory: write the fleet's files with "
            f"`as-conformance registrations {directory} ...`"
        )
    found: dict[str, Registration] = {}
    for path in sorted((*directory.glob("*.yaml"), *directory.glob("*.yml"), *directory.glob("*.json"))):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise BadRegistration(f"cannot read {path}: {error.strerror or error}") from error
        except ValueError as error:
            if not path.name.startswith("as-conformance-"):
                continue  # somebody else's bridge, in YAML
            raise BadRegistration(f"{path} is not JSON any more ({error}): write the files again") from error
        name = content.get("id") if isinstance(content, dict) else None
        if not isinstance(name, str) or name not in codes_by_id:
            continue
        wrong = problems("registration", content) or _url_problems(content["url"])
        if wrong:
            raise BadRegistration(f"{path} is no valid registration: {wrong[0]}")
        code = codes_by_id[name]
        if code in found:
            raise BadRegistration(f"{path} repeats the id {name!r} of another file in {directory}")
        found[code] = Registration.from_json(code, content)
    if not found:
        raise BadRegistration(
            f"{directory} holds no registration of the fleet: "
            f"write them with `as-conformance registrations {directory} ...` and load them into the homeserver"
        )
    return [found[code] for code in codes_by_id.values() if code in found]


def read_all(directory: Path) -> list[Registration]:
    """All registrations in a directory, as a homeserver reads them; whether they exclude each other is its business.

    :raises BadRegistration: nothing there, unreadable, not JSON, or not a registration.
    """
    from conformance.schemas import problems

    if not directory.is_dir():
        raise BadRegistration(f"{directory} is not a directory")
    found = []
    for path in sorted((*directory.glob("*.yaml"), *directory.glob("*.yml"), *directory.glob("*.json"))):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise BadRegistration(f"cannot read {path}: {error.strerror or error}") from error
        except ValueError as error:
            raise BadRegistration(f"{path} is not JSON ({error})") from error
        wrong = problems("registration", content) or _url_problems(content["url"])
        if wrong:
            raise BadRegistration(f"{path} is no valid registration: {wrong[0]}")
        found.append(Registration.from_json(path.stem, content))
    if not found:
        raise BadRegistration(f"{directory} holds no registration file (*.yaml, *.yml, *.json)")
    return found


def _url_problems(url: str | None) -> list[str]:
    try:
        _ = urlsplit(url or "").port
    except ValueError as error:
        return [f"url: {url!r}: {error}"]
    return []
