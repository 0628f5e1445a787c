"""The documentation: it names the options that there are, all of them, and its links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from conformance import plugin
from conformance.catalogue import load
from tests.test_checks import checked_requirements

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

#: The Markdown pages that are committed.
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]")
LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")
FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2", re.MULTILINE | re.DOTALL)

#: Options of other programs, as the pages use them.
FOREIGN = {
    *("--help", "--junitxml", "--lf", "--co"),  # pytest
    *("--signal",),  # systemctl
    *("--data-binary",),  # curl
    *("--data", "--name", "--port", "--registrations"),  # the homeserver of the examples, the reference by itself
}


@pytest.fixture(scope="module")
def generated() -> ModuleType:
    """The Sphinx extension that writes pages."""
    spec = importlib.util.spec_from_file_location("generated", DOCS / "generated.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def options_of_the_plugin() -> set[str]:
    return {option for option, _ in plugin._OPTIONS}


def test_the_page_of_options_has_all_of_the_plugin_and_of_the_console_script(generated: ModuleType) -> None:
    shown = {line.split("`")[1].split(" ")[0] for line in generated.options().splitlines() if line.startswith("| `")}
    assert options_of_the_plugin() <= shown
    assert {"--server-name", "--full", "--area"} <= shown


@pytest.mark.parametrize("option", sorted(options_of_the_plugin()))
def test_some_page_that_is_read_without_building_the_site_names_the_option(option: str) -> None:
    assert any(option in OPTION.findall(page.read_text(encoding="utf-8")) for page in PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_an_option_that_there_is_not(page: Path, generated: ModuleType) -> None:
    known = set(OPTION.findall(generated.options())) | FOREIGN
    assert set(OPTION.findall(page.read_text(encoding="utf-8"))) - known == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_to_files_and_their_sections(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


def anchors(page: Path) -> Iterator[str]:
    """The anchors of a page's headings, as forges and the site make them."""
    for heading in re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE):
        yield re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_every_page_of_docs_hangs_from_the_index() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8").splitlines()
    assert {page.stem for page in DOCS.glob("*.md")} - {"index"} - set(index) == set()


def test_every_requirement_stands_in_the_reference_with_its_check_or_the_reason_why_there_is_none(
    generated: ModuleType,
) -> None:
    checked = checked_requirements()
    for area in load().areas:
        head, *entries = generated.area_page(area).split("\n## ")
        assert head.startswith(f"# {area.name}: ")
        assert [entry.splitlines()[0] for entry in entries] == [row.id for row in area.requirements]
        for row, entry in zip(area.requirements, entries, strict=True):
            assert ("*Checked by* `" in entry) == (row.id in checked)
            assert row.id in checked or "*No check:* " in entry, row.id
            assert (row.not_asserted is not None) == ("*Not asserted:* " in entry)


def test_plain_text_stays_plain_in_markdown(generated: ModuleType) -> None:
    assert generated.escaped("a_b <c> [d] `e_f` *g*") == r"a\_b \<c\> \[d\] `e_f` \*g\*"
    assert generated.escaped("`a_b") == r"\`a\_b"


@pytest.mark.parametrize("script", sorted(DOCS.glob("*.sh")), ids=lambda script: script.name)
def test_scripts_can_be_read_by_a_shell(script: Path) -> None:
    assert subprocess.run(["sh", "-n", script], check=False).returncode == 0
