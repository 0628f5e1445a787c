"""The documentation's site: `tox -e docs` builds it into build/site, with warnings as errors."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from conformance import __version__

project = "as-conformance"
copyright = "its authors, Apache-2.0"
version = release = __version__

extensions = ["myst_parser", "generated"]
# Fragments, which pages include.
exclude_patterns = ["generated/options.md", "generated/areas.md", "generated/appservices.md"]
myst_heading_anchors = 3
# What is indented is a terminal's text, not Python.
highlight_language = "text"
# Options begin with two hyphens.
smartquotes = False

html_theme = "furo"
html_title = f"as-conformance {release}"
