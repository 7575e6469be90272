"""Small repairs of what Sphinx and the theme write, for readers of screens."""

import re
from typing import Any

from sphinx.application import Sphinx

# A signature with a parameter a line is a definition list without terms; lines of text are well-formed.
SIGNATURE = re.compile(r'<dl>\n(?P<lines>(?:<dd><em class="sig-param">.*?</dd>\n?)+)</dl>', flags=re.DOTALL)

# The empty corner of a table heads nothing.
CORNER = re.compile(r"<th(?P<rest>[^>]*)>(?:<p></p>)?</th>")


def repair(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    if "body" in context:
        body = SIGNATURE.sub(as_lines, context["body"])
        context["body"] = CORNER.sub(r"<td\g<rest>></td>", body)


def as_lines(found: re.Match[str]) -> str:
    lines = found["lines"].replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>")
    return f'<span class="sig-lines">{lines}</span>'


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("html-page-context", repair)
    return {"parallel_read_safe": True}
