"""Judging bodies and files by the JSON Schemas in `schemas/`.

A schema is named like its file: `transaction` is `schemas/transaction.schema.json`. A part of it that stands for
itself, or a variant of it, has an anchor: `transaction#envelope`. Schemas of Matrix bodies are as lenient as the
specification is open: extra keys are always allowed.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # importing these costs about 90 ms: they are loaded when the first body is judged
    import jsonschema  # type: ignore[import-untyped, unused-ignore]  # the stubs are a package of their own
    from referencing import Registry

#: What the `$id` of every schema begins with; its name follows.
URN = "urn:as-conformance:"

_SUFFIX = ".schema.json"
_LONGEST = 80

#: Keys whose values are credentials and are never shown.
_SECRETS = frozenset(
    {"access_token", "as_token", "hs_token", "refresh_token", "login_token", "token", "password", "authorization"}
)


def data_dir(name: str) -> Path:
    """The directory of shipped data of that name: inside the package in a wheel, beside it in a checkout.

    :raises FileNotFoundError: it is in neither place.
    """
    package = Path(__file__).resolve().parent
    for directory in (package / "_data" / name, package.parent / name):
        if directory.is_dir():
            return directory
    raise FileNotFoundError(f"the installation is incomplete: there is no {name}/ inside or beside {package}")


@cache
def names() -> tuple[str, ...]:
    """The names of all schemas, sorted."""
    return tuple(sorted(path.name.removesuffix(_SUFFIX) for path in data_dir("schemas").glob(f"*{_SUFFIX}")))


def load(name: str) -> Any:
    """A schema as it stands in its file.

    :raises LookupError: there is no such schema.
    """
    if name not in names():
        raise LookupError(f"there is no schema {name!r}, only {', '.join(names())}")
    return json.loads((data_dir("schemas") / f"{name}{_SUFFIX}").read_text(encoding="utf-8"))


def problems(schema: str, instance: object, *, limit: int = 5) -> list[str]:
    """What is wrong with a parsed body, one line each, sorted by path; nothing when it is valid.

    A line reads ``events/0/origin_server_ts: "12" is not of type "integer"``; the path of the top level is ``body``.
    Long values are cut, credentials hidden and characters that a terminal might obey escaped. Beyond `limit` lines
    the last one says how many more there are; 0 is no limit.

    :param schema: the name of a schema, with ``#anchor`` for a part or a variant of it.
    :raises LookupError: there is no such schema or anchor.
    """
    errors = _validator(schema).iter_errors(instance)
    try:
        # A set: a rule that two schemas share is broken once.
        found = {(_path_order(error), line) for error in errors for line in _lines(error)}
    except RecursionError:  # in the library's own message about a wrong value; what may be nested is not looked into
        return ["body: a value that has to be simple is nested too deeply to be shown"]
    lines = [line for _, line in sorted(found)]
    if len(lines) > limit > 0:
        more = len(lines) - limit
        lines = lines[:limit]
        lines[-1] += f" (and {more} more)"
    return lines


@cache
def _validator(schema: str) -> jsonschema.Draft202012Validator:
    """The compiled validator of a schema or of an anchor in it."""
    import jsonschema  # type: ignore[import-untyped, unused-ignore]
    from referencing.exceptions import Unresolvable

    name, _, anchor = schema.partition("#")
    load(name)
    registry = _registry()
    if anchor:
        try:
            registry.anchor(URN + name, anchor)
        except Unresolvable:
            raise LookupError(f"the schema {name!r} has no anchor {anchor!r}") from None
    return jsonschema.Draft202012Validator({"$ref": URN + schema}, registry=registry)


@cache
def _registry() -> Registry[Any]:
    """All schemas, so that they can refer to each other."""
    from referencing import Registry, Resource

    resources = ((URN + name, Resource.from_contents(load(name))) for name in names())
    return Registry[Any]().with_resources(resources).crawl()


def _path_order(error: jsonschema.ValidationError) -> tuple[tuple[int, str], ...]:
    """Sorts errors by path, list indexes as numbers."""
    return tuple((step, "") if isinstance(step, int) else (-1, step) for step in error.absolute_path)


def _lines(error: jsonschema.ValidationError) -> list[str]:
    """The lines that describe an error."""
    steps = list(error.absolute_path)
    path = "/".join(_cut(_clean(str(step))) for step in steps) if steps else "body"
    return [f"{path}: {what}" for what in _complaints(error, secret=any(step in _SECRETS for step in steps))]


def _complaints(error: jsonschema.ValidationError, *, secret: bool) -> list[str]:
    """What is wrong, without the path."""
    keyword = error.validator
    rule: Any = error.validator_value
    value: Any = error.instance
    schema: Any = error.schema
    shown = "(a secret)" if secret else _shown(value)
    match keyword:
        case "required":  # reported once for each missing key, without saying which
            return [f"{_shown(key)} is missing" for key in rule if key not in value]
        case "additionalProperties":
            known = schema.get("properties", {})
            return [f"{_shown(key)} is not a known key" for key in value if key not in known]
        case "not":
            return ["must not be there"]
        case "type":
            what = f"is not of type {_choice(rule)}"
        case "enum":
            what = f"is not {_choice(rule)}"
        case "const":
            what = f"is not {_shown(rule)}"
        case "pattern":
            what = f"does not match {_shown(rule)}"
        case _:
            what = f"does not satisfy {keyword} {_shown(rule)}"
    return [f"{shown} {what}"]


def _choice(rule: Any) -> str:
    """The values of `enum`, or the one or several of `type`, in words."""
    return " or ".join(_shown(value) for value in (rule if isinstance(rule, list) else [rule]))


def _shown(value: object) -> str:
    """A value as JSON on one line of tolerable length."""
    text = json.dumps(_masked(value), ensure_ascii=False, default=str)
    return _cut(_clean(text[: _LONGEST + 1]))


def _masked(value: object) -> object:
    """A value without its credentials."""
    if isinstance(value, dict):
        return {key: "(a secret)" if key in _SECRETS else _masked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item) for item in value]
    return value


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _clean(text: str) -> str:
    """A text whose unprintable characters (control, bidirectional, lone surrogates) are escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
