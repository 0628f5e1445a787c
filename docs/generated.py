"""What the site says about options, appservices and requirements, written from the suite itself when it is built.

A Sphinx extension: before it looks for pages it writes `docs/generated/`, which is not committed. The pages of the
areas stand by themselves, the other files are included by pages.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import conformance.checks
from conformance import cli, plugin
from conformance.appservice.roster import ROLES, Role
from conformance.catalogue import ALL_APPSERVICES, Area, Requirement, load
from conformance.reference.defects import defects

#: What means something in Markdown.
_SPECIAL = re.compile(r"([\\`*_\[\]<>{}$#])")

_WAITS = {
    "F": "fast",
    "Q": "takes a quiet window",
    "B": "takes the homeserver's backoff",
    "T": "takes the homeserver's time-outs",
    "R": "takes a restart or another boot",
    "-": "not observable",
}


def setup(app: Any) -> dict[str, bool]:
    """Sphinx's entry point."""
    app.connect("builder-inited", lambda builder: write(Path(builder.srcdir) / "generated"))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write(directory: Path) -> None:
    """Write every page and fragment, touching only those that change: Sphinx reads them anew otherwise."""
    directory.mkdir(exist_ok=True)
    catalogue = load()
    pages = {f"{area.name.lower()}.md": area_page(area) for area in catalogue.areas}
    pages |= {"areas.md": areas(catalogue.areas), "options.md": options(), "appservices.md": appservices()}
    for old in directory.glob("*.md"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        path = directory / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def options() -> str:
    """The plugin's options and those of the console script, as tables."""
    rows = ((option, settings, settings["help"]) for option, settings in plugin._OPTIONS)
    lines = ["## pytest", "", *_table(("Option", "Meaning"), (_option(*row) for row in rows))]
    for name, parser in _commands().items():
        lines += ["", f"## as-conformance {name}", "", f"{escaped(parser.description or '')}", ""]
        given = [each for each in parser._actions if not isinstance(each, argparse._HelpAction)]
        lines += _table(("Option", "Meaning"), (_option(*_named(each)) for each in given))
    return "\n".join(lines) + "\n"


def _commands() -> Mapping[str, argparse.ArgumentParser]:
    (commands,) = (each for each in cli._parser()._actions if isinstance(each, argparse._SubParsersAction))
    return commands.choices


def _named(action: argparse.Action) -> tuple[str, dict[str, Any], str]:
    """An option as the plugin's table has them: name, settings, help."""
    if not action.option_strings:
        return str(action.metavar), {}, action.help or ""
    metavar = "|".join(map(str, action.choices)) if action.choices else action.metavar or action.dest.upper()
    settings = {"metavar": None if action.nargs == 0 else metavar}
    if isinstance(action, argparse._AppendAction):
        settings["action"] = "append"
    return action.option_strings[0], settings, action.help or f"how it is printed ({action.default})"


def _option(name: str, settings: Mapping[str, Any], told: str) -> tuple[str, str]:
    shown = f"{name} {settings['metavar']}" if settings.get("metavar") else name
    again = "; repeatable" if settings.get("action") == "append" and "repeatable" not in told else ""
    return f"`{shown}`", escaped(told + again)


def appservices() -> str:
    """The fleet: what each appservice is registered for."""
    return "\n".join(_table(("Code", "For"), map(_member, ROLES.values()))) + "\n"


def _member(role: Role) -> tuple[str, str]:
    return f"`{role.code}`", escaped(role.purpose)


def areas(all_areas: Iterable[Area]) -> str:
    """A table of the areas, and the table of contents that the pages of the areas hang from."""
    shown = list(all_areas)
    checked = _checks()
    rows = []
    for area in shown:
        count = sum(each.id in checked for each in area.requirements)
        link = f"[{area.name}](generated/{area.name.lower()}.md)"
        rows.append((link, escaped(area.title), str(len(area.requirements)), str(count)))
    total = sum(len(area.requirements) for area in shown)
    rows.append(("", "all", str(total), str(sum(int(row[3]) for row in rows))))
    table = _table(("Area", "About", "Requirements", "With a check"), rows)
    toctree = ["```{toctree}", ":hidden:", "", *(f"generated/{area.name.lower()}" for area in shown), "```"]
    return "\n".join([*table, "", *toctree]) + "\n"


def area_page(area: Area) -> str:
    """The requirements of an area."""
    head = [f"# {area.name}: {area.title}", "", f"`pytest --hs-url … --only {area.name}`", ""]
    return "\n".join([*head, *chain.from_iterable(_requirement(each) for each in area.requirements)])


def _requirement(row: Requirement) -> Iterator[str]:
    yield f"## {row.id}"
    yield ""
    yield escaped(row.text)
    yield ""
    level = f"**{row.level}**" + (" (broken is a warning in the lenient reading)" if row.strict else "")
    held = f"since {row.since}" + (f", until {row.until}" if row.until else "")
    spoken = "" if row.dialects == ("modern",) else f" · dialects {', '.join(row.dialects)}"
    yield f"{level} · {held}{spoken} · {escaped(row.section)} · {_WAITS[row.timing]}{_needs(row)}"
    yield ""
    if row.reading:
        yield from ("The two readings judge it differently.", "")
    if row.not_asserted:
        yield from (f"*Not asserted:* {escaped(row.not_asserted)}", "")
    checks = _checks()[row.id]
    if row.unobservable:
        yield from (f"*{'Not all of it is checked' if checks else 'No check'}:* {escaped(row.unobservable)}", "")
    elif not checks:
        yield from ("*No check yet.*", "")
    if checks:
        yield from (f"*Checked by* {', '.join(f'`{check}`' for check in checks)}", "")
    if caught := _caught()[row.id]:
        yield from (f"*Seen to fail for* {', '.join(f'`{each}`' for each in caught)}", "")


def _needs(row: Requirement) -> str:
    if row.needs == ALL_APPSERVICES:
        return " · all appservices"
    codes = [each for each in row.needs if each not in ("dynamic", "federation")]
    return f" · appservice{'s' if len(codes) > 1 else ''} {', '.join(codes)}" if codes else ""


@cache
def _checks() -> defaultdict[str, list[str]]:
    """The names of the checks that decide each requirement."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for each in pkgutil.iter_modules(conformance.checks.__path__):
        if not each.name.startswith("test_"):
            continue
        module = importlib.import_module(f"conformance.checks.{each.name}")
        for name, check in vars(module).items():
            for mark in getattr(check, "pytestmark", ()) if name.startswith("test_") else ():
                for requirement in mark.args if mark.name == "requirement" else ():
                    found[requirement].append(f"{each.name}.py::{name}")
    return found


@cache
def _caught() -> defaultdict[str, list[str]]:
    """The defects of the reference homeserver that break each requirement."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for defect in defects().values():
        for requirement in defect.breaks:
            found[requirement].append(defect.id)
    return found


def _table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return lines + ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]


def escaped(text: str) -> str:
    """Plain text as Markdown; what stands between backticks stays code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # a backtick that is none of a pair
        return _SPECIAL.sub(r"\\\1", text)
    return "`".join(part if number % 2 else _SPECIAL.sub(r"\\\1", part) for number, part in enumerate(parts))
