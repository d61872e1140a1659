"""Sphinx configuration: Markdown pages, docstrings rendered by autodoc, warnings treated as errors."""

import re
import sys
from pathlib import Path

from kilograd import __version__

sys.path.insert(0, str(Path(__file__).parent / "_ext"))  # directives of our own

project = "kilograd"
author = "The kilograd authors"
copyright = f"2026, {author}"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "ancestors",
    "measured",
    "pictures",
    "reference",
    "running",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"kilograd {version}"
html_static_path = ["_static"]
html_css_files = ["kilograd.css"]
html_theme_options = {
    "light_logo": "logo.svg",
    "dark_logo": "logo.svg",
    "sidebar_hide_name": False,
}
html_favicon = "_static/logo.svg"
html_copy_source = False

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # they stand in the signature; NumPy's expand to half a page
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
toc_object_entries = False  # a page of a hundred functions has sections enough
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def literal_stars(app, what, name, obj, options, lines):
    """Docstrings write shapes as (*, n) and sizes as |x|; neither is markup."""
    in_example = False
    for i, line in enumerate(lines):
        in_example = line.lstrip().startswith(">>>") or (in_example and bool(line.strip()))
        if not in_example:
            parts = re.split(r"(``.*?``|`[^`]*`)", line)
            parts[::2] = [re.sub(r"([*|])", r"\\\1", part) for part in parts[::2]]
            lines[i] = "".join(parts)


def setup(app):
    app.connect(
        "autodoc-process-docstring", literal_stars, priority=400
    )  # before napoleon's fields
