"""The documentation site: tools/docs builds it into build/docs, without a network.

The source folder is the top of the checkout, so that pages link one another and files of the tree by the same relative
paths here and wherever Markdown is shown.
"""

import re
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP))

import hashret  # noqa: E402  (from this checkout)
from hashret.cli import main  # noqa: E402
from hashret.cli.options import ListedCommand, ListedOption  # noqa: E402

project = "hashret"
author = "the authors of hashret"
project_copyright = "MIT licence"
version = release = hashret.__version__
language = "en"
smartquotes = False  # -- begins an option

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_copybutton",
    "sphinx_design",
]
root_doc = "docs/index"
include_patterns = ["docs/*.md", "benchmarks/*.md", "*.md"]
exclude_patterns = ["README.md", ".*", "build", "hashret", "tests", "tools", "shared", "**/results", "**/__pycache__"]
source_suffix = {".md": "markdown"}

# Pages link headings as GitHub names them, and files of the tree as downloads.
myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 4

# Docstrings are of Google's style; a name in backticks is linked where it is a public one.
highlight_language = "text"  # usage of the command line; code says what it is
default_role = "py:obj"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_preprocess_types = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_type_aliases = {name: name for name in ("Photo", "StrPath")}  # what they stand for is on the page
python_maximum_signature_line_length = 100
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True

suppress_warnings = ["ref.python"]  # attributes of results share names with those of other classes

html_theme = "furo"
html_title = f"hashret {release}"
html_static_path = ["_static"]
html_css_files = ["hashret.css"]
templates_path = ["_templates"]
html_additional_pages = {"index": "redirect.html"}  # from the top of the site to docs/index.html
html_copy_source = False
html_show_sourcelink = False


def setup(app):
    """Help is plain text: its asterisks mark nothing, and lines that stand as they are stay so."""
    _list_registries(main)
    for part in ("description", "options", "arguments", "epilog"):
        app.connect(f"sphinx-click-process-{part}", _as_plain)
    app.connect("source-read", _with_routes)


def _list_registries(command):
    """Write into help what it lists of a registry, which click does when it shows the help."""
    for listed in (command, *command.params):
        if isinstance(listed, ListedCommand | ListedOption):
            listed.help = listed.help.replace("{}", ", ".join(listed.names()))
    for verb in getattr(command, "commands", {}).values():
        _list_registries(verb)


def _as_plain(app, context, lines):
    plain = []
    for line in lines:
        if line.startswith("| "):
            plain += [] if plain and plain[-1].startswith("    ") else ["::", ""]
            plain.append(f"    {line[2:]}")
        else:
            plain.append(re.sub(r"(``.*?``)|([*@])", lambda found: found[1] or rf"\{found[2]}", line))
    lines[:] = plain


def _with_routes(app, name, source):
    if name == "docs/http":
        source[0] = source[0].replace("<!-- routes -->", "\n".join(_routes()))


def _routes():
    """The service's own OpenAPI description, as Markdown."""
    from fastapi import FastAPI

    from hashret.service.routes import router

    service = FastAPI()
    service.include_router(router)
    described = service.openapi()
    for path, methods in described["paths"].items():
        for method, route in methods.items():
            answer = route["responses"]["200"]["content"]
            schema = next(iter(answer.values())).get("schema", {})
            gives = f"Answers with {_type(schema)}." if schema else f"Answers with `{next(iter(answer))}`."
            yield from (f"## {method.upper()} {path}", "", f"{route.get('description', '')} {gives}", "")
            body = route.get("requestBody", {}).get("content", {})
            kinds = [
                f"`{kind}`" + (f" of {_type(of['schema'])}" if "$ref" in of["schema"] else "")
                for kind, of in body.items()
            ]
            if kinds:
                yield from (f"Body: {', or '.join(kinds)}.", "")
            if route.get("parameters"):
                yield from _table(
                    ("parameter", "type", "default", "what"),
                    ((p["name"], _type(p["schema"]), p["schema"].get("default", ""), p.get("description", ""))
                     for p in route["parameters"]),
                )  # fmt: skip
    for name, schema in described["components"]["schemas"].items():
        if "properties" in schema and "Validation" not in name:
            yield from (f"## {name}", "", schema.get("description", ""), "")
            fields = ((n, _type(f), f.get("description", "")) for n, f in schema["properties"].items())
            yield from _table(("field", "type", "what"), fields)


def _type(schema):
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_type(schema['items'])}"
    limits = [f"{sign} {schema[limit]}" for limit, sign in (("minimum", "≥"), ("maximum", "≤")) if limit in schema]
    return " ".join([kind, *limits])


def _table(head, rows):
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |"
    yield ""
