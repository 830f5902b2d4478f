"""How the documentation is built; ``scripts/docs`` does it, with every warning an error."""

from __future__ import annotations

import importlib.metadata

project = "hunyuan-local"
release = importlib.metadata.version(project)
html_title = f"{project} {release}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "pictures/README.md"]
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

nitpicky = True
# Types of other projects, whose documentation a build without a network cannot look up.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!hunyuan_local\b)(?:[a-zA-Z_]\w*\.)+\w+"),
    (r"py:.*", r"None|bool|int|float|str|bytes|dict|list|tuple|set|frozenset|object|type|optional"),
]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
napoleon_numpy_docstring = False

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["extra.css"]
html_extra_path = ["llms.txt"]
html_theme_options = {
    "source_repository": "",
    "navigation_with_keys": True,
}
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True
