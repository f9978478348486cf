"""The site of these pages: `make docs` builds it with every warning an error."""

import re
from typing import Any

from edgeprefix.runtime.version import __version__

project = "edgeprefix"
project_copyright = "the edgeprefix authors, Apache-2.0"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]

# Pages are plain Markdown that a forge shows as well; headings get the forge's own anchors.
myst_heading_anchors = 3

# Docstrings are plain text, and what stands in single backticks is code.
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = False

html_theme = "furo"
html_title = f"edgeprefix {version}"
html_show_sphinx = False
html_copy_source = False


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", keep_plain)


def keep_plain(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Outside of backticks and examples, bars, stars and underscores of a docstring are meant."""
    for number, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            parts = line.split("`")
            parts[::2] = [re.sub(r"([|*_])", r"\\\1", part) for part in parts[::2]]
            lines[number] = "`".join(parts)
