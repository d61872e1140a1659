"""Sphinx configuration: Markdown pages, docstrings rendered by autodoc, warnings treated as errors."""

from kilograd import __version__

project = "kilograd"
author = "The kilograd authors"
copyright = f"2026, {author}"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"kilograd {version}"

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # they stand in the signature; NumPy's expand to half a page
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
