"""How the documentation is built; ``scripts/docs`` does it, with every warning an error."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import itertools
import re

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from sphinx.application import Sphinx
from sphinx.domains.python import PyObject

from hunyuan_local.cli.main import group
from hunyuan_local.cli.shared.panels import PANELS
from hunyuan_local.field_checks import Limits

project = "hunyuan-local"
release = importlib.metadata.version(project)
html_title = f"{project} {release}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "pictures/README.md"]
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3
smartquotes = False  # options such as --model and quoted commands stay as typed

nitpicky = True
# Types of other projects, whose documentation a build without a network cannot look up.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!hunyuan_local\b)(?:[a-zA-Z_]\w*\.)+\w+"),
    (r"py:.*", r"None|NoneType|bool|int|float|str|bytes|dict|list|tuple|set|frozenset|object|type|optional"),
    (r"py:class", r"FieldInfo|Image"),
    # Parts of public types that have no entry.
    (
        r"py:class",
        r"hunyuan_local\.(resolved\.FilledRequest|planner\.(time_estimate\.Seconds|cards\.Utilisation|compiling\.Compiling|batch\.\w+))",
    ),
    (r"py:class", r"hunyuan_local\.planner\.(quantization\.Method|result\.ComponentWeights)"),
    (r"py:class", r"hunyuan_local\.config\.allocator\.Allocator"),
]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
autodoc_inherit_docstrings = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # one entry a field: the members of a class list it already

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


def _with_fields(cls: type, lines: list[str]) -> list[str]:
    """A class's docstring whose ``Attributes:`` name every field and, where there is one, the default."""
    texts = {name: _described(field) for name, field in getattr(cls, "model_fields", {}).items()}
    if not texts:
        texts = {field.name: "" for field in dataclasses.fields(cls)}
    defaults = {name: default for name in texts if (default := _default(cls, name))}
    if not any(line.strip() == "Attributes:" for line in lines):
        listed = [f"    {name}: {text or defaults.get(name, 'always set')}" for name, text in texts.items()]
        lines = [*lines, "", "Attributes:", *listed]
    return lines


def _described(field: FieldInfo) -> str:
    """The description of a field and its range."""
    limits = [f"``{item}``" for item in field.metadata if isinstance(item, Limits)]
    return " ".join([field.description or "", *limits]).strip()


def _default(cls: type, name: str) -> str:
    """Such as ``default 0``; nothing where there is none that can be said in a word."""
    fields = getattr(cls, "model_fields", None) or {field.name: field for field in dataclasses.fields(cls)}
    value = fields[name].default
    return f"default ``{value!r}``" if value is None or isinstance(value, bool | int | float | str) else ""


def _complete(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    if what == "property" and lines:
        lines[0] = lines[0].replace(": ", "; ")  # napoleon would take what is before it for a type
    elif what == "class" and (dataclasses.is_dataclass(obj) or issubclass(obj, BaseModel)):
        lines[:] = _with_fields(obj, lines)


def _shorten(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """No signature for a class whose fields are listed, and no pydantic settings inside of types."""
    if what == "class" and issubclass(obj, BaseModel):
        return "", None
    return signature, returns and re.sub(r"(?:~?\w+\.)?Annotated\[(.*), FieldInfo\(.*\)\]", r"\1", returns)


def _order_options() -> None:
    """List the options of each command in the order in which ``--help`` groups them."""
    places = {option: place for place, option in enumerate(itertools.chain.from_iterable(PANELS.values()))}
    for name in group.commands:
        command = importlib.import_module(f"hunyuan_local.cli.commands.{name}").command
        command.params.sort(key=lambda parameter: places.get(parameter.opts[0], -1))


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    _order_options()
    next(kind for kind in PyObject.doc_field_types if kind.name == "variable").label = "Attributes"
    app.connect("autodoc-process-docstring", _complete, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", _shorten)
