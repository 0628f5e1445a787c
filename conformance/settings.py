"""What the user asked for: the plugin's options, read and checked before anything is started."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from conformance.catalogue import load
from conformance.catalogue.selection import select
from conformance.catalogue.versions import LATEST, Version
from conformance.dialects import Dialect, dialect_of
from conformance.homeserver.humans import Admission
from conformance.homeserver.process import TargetFailed
from conformance.homeserver.target import check_command, check_restart_command
from conformance.namespaces.fuzz import Plan
from conformance.plugin import option
from conformance.report.baseline import BadBaseline, Known
from conformance.report.baseline import read as read_baseline
from conformance.run import Budgets

#: Homeservers that the suite starts by name.
NAMES = ("synapse", "reference")

#: The waits for the reference homeserver, whose own are short.
REFERENCE_BUDGETS = Budgets(backoff=12.0, block=24.0, quiet=0.5, deliver=5.0, scale=0.05)

#: Questions of each kind about generated namespaces: Synapse takes ten seconds for all of them.
EXAMPLES, EXAMPLES_OF_THE_REFERENCE = 300, 170

#: Seconds that a run may last.
OVERALL = 3600.0


@dataclass(frozen=True)
class Settings:
    """The options of a run."""

    url: str | None
    name: str | None
    command: str | None
    restart_command: str | None
    #: How the reference homeserver deviates.
    defect: str | None
    registrations: Path | None
    bind: str
    admission: Admission
    #: None: the newest version that the homeserver claims.
    version: Version | None
    #: How the homeserver speaks.
    dialect: Dialect
    #: The ids that are judged; None: all.
    only: frozenset[str] | None
    strict: bool
    budgets: Budgets
    #: Seconds that the run may last.
    overall: float
    report: Path | None
    baseline: Path | None
    known: dict[str, Known]
    update_baseline: bool
    #: How namespaces are fuzzed.
    fuzzing: Plan


def read(config: pytest.Config) -> Settings:
    """The settings of a pytest session.

    :raises pytest.UsageError: an option that makes no sense; the message says what would.
    """
    url, name, command = (_text(config, each) for each in ("hs-url", "hs", "hs-command"))
    given = [f"--{each}" for each, value in (("hs-url", url), ("hs", name), ("hs-command", command)) if value]
    if len(given) > 1:
        raise pytest.UsageError(f"{' and '.join(given)} name different homeservers: give one of them")
    if url is not None:
        _check_url(url)
    if name is not None and name not in NAMES:
        raise pytest.UsageError(f"--hs {name}: there is no such homeserver; there are {', '.join(NAMES)}")
    defect = _defect(name, _text(config, "defect"))
    restart_command = _text(config, "hs-restart-command")
    try:
        if restart_command is not None:
            check_restart_command(restart_command)
        if command is not None:
            check_command(command)
    except TargetFailed as error:
        raise pytest.UsageError(str(error)) from error
    if restart_command is not None and url is None:
        raise pytest.UsageError("--hs-restart-command goes with --hs-url: what the suite starts it restarts by itself")
    registrations = _path(config, "as-registrations")
    if url is not None and registrations is None:
        raise pytest.UsageError(
            "--hs-url needs --as-registrations DIR: the files the homeserver was started with "
            "(`as-conformance registrations DIR` writes them)"
        )
    if url is None and registrations is not None:
        raise pytest.UsageError("--as-registrations goes with --hs-url: a homeserver the suite starts gets its own")
    baseline = _path(config, "baseline")
    update = bool(option(config, "baseline-update"))
    if update and baseline is None:
        raise pytest.UsageError("--baseline-update needs --baseline FILE")
    reference = name == "reference"
    version = _version(_spec(config, defect))
    return Settings(
        url=url,
        name=name,
        command=command,
        restart_command=restart_command,
        defect=defect,
        registrations=registrations,
        bind=_text(config, "as-bind") or "127.0.0.1",
        admission=_of_the_reference(_admission(config)) if reference else _admission(config),
        version=version,
        dialect=_dialect(config, version, name),
        only=_only(_text(config, "only")),
        strict=_reading(_text(config, "reading") or "lenient"),
        budgets=_budgets(config, REFERENCE_BUDGETS if reference else Budgets()),
        overall=_seconds(config, "overall-wait", OVERALL),
        report=_report(config),
        baseline=baseline,
        known=_known(baseline, update),
        update_baseline=update,
        fuzzing=_fuzzing(config, reference, managed=url is None),
    )


def _fuzzing(config: pytest.Config, reference: bool, managed: bool) -> Plan:
    examples = _count(config, "fuzz-examples", EXAMPLES_OF_THE_REFERENCE if reference else EXAMPLES)
    worlds = _count(config, "fuzz-namespaces", 0)
    if worlds and not managed:
        raise pytest.UsageError("--fuzz-namespaces needs a homeserver that the suite starts: --hs or --hs-command")
    return Plan(_count(config, "fuzz-seed", Plan.seed), examples, worlds)


def _count(config: pytest.Config, name: str, default: int) -> int:
    text = _text(config, name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise pytest.UsageError(f"--{name} {text}: not a number from 0 on")
    return int(text)


def _text(config: pytest.Config, name: str) -> str | None:
    value = option(config, name)
    return str(value).strip() or None if value is not None else None


def _path(config: pytest.Config, name: str) -> Path | None:
    text = _text(config, name)
    return None if text is None else config.invocation_params.dir / text


def _report(config: pytest.Config) -> Path | None:
    """The report's directory, made now: a run should not find out at its end that it cannot write."""
    path = _path(config, "conformance-report")
    if path is None or config.option.collectonly:
        return path
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / "results.json").touch()
    except OSError as error:
        raise pytest.UsageError(
            f"--conformance-report {path}: cannot write there: {error.strerror or error}"
        ) from error
    return path


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        usable = False
    if not usable:
        raise pytest.UsageError(f"--hs-url {url}: not a URL such as http://localhost:8008")


def _version(text: str | None) -> Version | None:
    if text is None:
        return None
    if text == "latest":
        return LATEST
    try:
        version = Version.parse(text)
    except ValueError as error:
        raise pytest.UsageError(f"--spec {text}: {error}") from error
    return version


def _spec(config: pytest.Config, defect: str | None) -> str | None:
    """`--spec`, or else the dialect of the defect."""
    given = _text(config, "spec")
    if defect is None:
        return given
    from conformance.reference.defects import spec_of

    own = spec_of(defect)
    if own is not None and given not in (None, own):
        raise pytest.UsageError(f"--defect {defect} is one of --spec {own}, not of {given}")
    return given or own


def _dialect(config: pytest.Config, version: Version | None, name: str | None) -> Dialect:
    """How the homeserver speaks, with the base paths that were given."""
    dialect = dialect_of(version)
    if name == "synapse" and dialect.admission is not None:
        raise pytest.UsageError(f"--spec {version}: the Synapse of this environment does not speak the drafts of 2015")
    given = {each: _base(config, each) for each in ("hs-client-path", "hs-appservice-path")}
    wrong = [each for each, path in given.items() if path is not None and dialect.is_modern]
    if given["hs-appservice-path"] is not None and dialect.admission is None:
        wrong.append("hs-appservice-path")
    if wrong:
        raise pytest.UsageError(f"--{wrong[0]} goes with the --spec of a draft")
    return dialect.with_bases(*given.values())


def _base(config: pytest.Config, name: str) -> str | None:
    text = _text(config, name)
    if text is not None and not text.startswith("/"):
        raise pytest.UsageError(f"--{name} {text}: not a path such as /_matrix/client/api/v1")
    return text.rstrip("/") if text is not None else None


def _only(text: str | None) -> frozenset[str] | None:
    if text is None:
        return None
    try:
        return select(text, load())
    except ValueError as error:
        raise pytest.UsageError(f"--only {text}: {error}") from error


def _reading(text: str) -> bool:
    if text not in ("lenient", "strict"):
        raise pytest.UsageError(f"--reading {text}: there are lenient and strict")
    return text == "strict"


def _defect(name: str | None, text: str | None) -> str | None:
    if text is None:
        return None
    if name != "reference":
        raise pytest.UsageError("--defect goes with --hs reference: only the reference homeserver has defects")
    from conformance.reference.defects import policies_of

    try:
        policies_of(text)
    except KeyError:
        raise pytest.UsageError(
            f"--defect {text}: there is no such defect or variant; `as-conformance kill-matrix --list` names them all"
        ) from None
    return text


def _of_the_reference(given: Admission) -> Admission:
    """The reference lets in who has a token of this run, so that its registration is not open to everybody."""
    if given != Admission():
        raise pytest.UsageError("--hs reference registers its own users: leave out --hs-user and its like")
    return Admission(registration_token=secrets.token_urlsafe(18))


def _budgets(config: pytest.Config, default: Budgets) -> Budgets:
    names = ("backoff", "block", "quiet", "deliver")
    given = {each: _seconds(config, f"{each}-wait", getattr(default, each)) for each in names}
    return replace(default, **given)


def _seconds(config: pytest.Config, name: str, default: float) -> float:
    text = _text(config, name)
    if text is None:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 86400:
        raise pytest.UsageError(f"--{name} {text}: not a number of seconds")
    return seconds


def _admission(config: pytest.Config) -> Admission:
    logins = []
    for login in _list(config, "hs-user"):
        # A full user ID has colons of its own: the password follows the last one that is not part of the ID.
        head, colon, tail = login[1:].partition(":") if login.startswith("@") else ("", "", "")
        user, separator, password = login.partition(":") if not colon else tail.rpartition(":")
        if colon:
            user = f"@{head}:{user}"
        if not separator or not user or not password:
            raise pytest.UsageError("--hs-user wants USER:PASSWORD")
        logins.append((user, password))
    return Admission(
        logins=tuple(logins),
        tokens=tuple(_list(config, "hs-user-token")),
        shared_secret=_text(config, "hs-registration-shared-secret"),
        registration_token=_text(config, "hs-registration-token"),
    )


def _list(config: pytest.Config, name: str) -> list[str]:
    values = option(config, name)
    return [str(value) for value in values] if isinstance(values, list) else []


def _known(path: Path | None, update: bool) -> dict[str, Known]:
    if path is None or (update and not path.exists()):
        return {}
    try:
        return read_baseline(path, load(), datetime.now(UTC).date())
    except BadBaseline as error:
        raise pytest.UsageError(str(error)) from error
