"""The documentation as a site: ``make docs``. Its pages are the Markdown files of the repository, as they stand."""

from __future__ import annotations

import importlib.metadata
import json
import re
from typing import Any

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

project = "adgan_fast"
author = "the adgan_fast authors"
release = importlib.metadata.version("adgan_fast")
root_doc = "docs/index"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**.md", "docs/**.ipynb"]
source_suffix = {".md": "markdown", ".ipynb": "markdown"}
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_heading_anchors = 4  # as GitHub makes them
myst_enable_extensions = ["colon_fence"]
html_theme = "furo"
html_title = f"adgan_fast {release}"
html_copy_source = False
default_role = "code"  # what docstrings have in `backquotes`
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes of a class are in its own entry, not an entry each


def as_text(app: Sphinx, what: str, name: str, thing: object, options: Any, lines: list[str]) -> None:
    """Docstrings are text with `names` in backquotes: in all else * and | mean themselves."""
    for number, line in enumerate(lines):
        parts = re.split(r"(``.*?``|`.*?`)", line)
        lines[number] = "".join(re.sub(r"([*|])", r"\\\1", part) if part[:1] != "`" else part for part in parts)


def without_type(app: Sphinx, what: str, name: str, thing: object, options: Any, lines: list[str]) -> None:
    """Of an attribute napoleon takes what stands before a first colon for its type: here a part of the sentence."""
    types = [line for line in lines if line.startswith(":type: ")]
    if what in ("attribute", "data", "property") and types:
        lines.remove(types[0])
        lines[0] = f"{types[0].removeprefix(':type: ')}: {lines[0]}"


def of_the_tuple(app: Sphinx, what: str, name: str, thing: object, skip: bool, options: Any) -> bool | None:
    """Fields of a NamedTuple are in its own entry: what Python says of them is their number."""
    return True if (thing.__doc__ or "").startswith("Alias for field number") else None


def as_markdown(app: Sphinx, docname: str, source: list[str]) -> None:
    """A notebook as a page: its text, its code, and under that what it printed and drew when it was last run."""
    if app.env.doc2path(docname).suffix != ".ipynb":
        return
    parts = []
    for cell in json.loads(source[0])["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        for output in cell.get("outputs", []):
            if output.get("name") == "stdout":
                parts.append(f"```text\n{''.join(output['text'])}```")
            elif "data" in output:
                parts.append(
                    f'<img src="data:image/png;base64,{output["data"]["image/png"].strip()}" alt="the picture drawn">'
                )
    source[0] = "\n\n".join(parts)


def setup(app: Sphinx) -> None:
    app.connect("autodoc-skip-member", of_the_tuple)
    app.connect("source-read", as_markdown)
    app.connect("autodoc-process-docstring", as_text, priority=100)  # before napoleon takes the sections apart
    app.connect("autodoc-process-docstring", without_type, priority=900)  # after it
    app.add_lexer("tree", TextLexer)
