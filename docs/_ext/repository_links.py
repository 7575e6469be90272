"""Links from a page to files of the checkout outside docs/, such as ../benchmarks/results.

They are written as a reader of the Markdown needs them. On the site they lead to the published repository,
if its address is known (``repository_url``); else a file is offered as a download and a folder is named.
"""

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform


class RepositoryLinks(SphinxTransform):
    """Resolves those links before MyST looks for pages of that name."""

    default_priority = 200  # downloads are collected after it

    def apply(self, **kwargs: Any) -> None:
        for kind in (addnodes.download_reference, addnodes.pending_xref):
            for node in list(self.document.findall(kind)):
                path = self._outside(node)
                if path is not None:
                    node.replace_self(self._link(node, path))

    def _outside(self, node: nodes.Element) -> Path | None:
        """Where a link leads, if that is there, in the checkout and not in docs/."""
        docs, target = Path(self.env.srcdir).resolve(), node["reftarget"].partition("#")[0]
        if node.get("refdomain") == "doc":  # a page, as MyST takes it: an absolute path without its suffix
            target += ".md"
        elif not target.startswith("../"):
            return None
        path = (docs / self.env.docname).parent.joinpath(target).resolve()
        inside = path.is_relative_to(docs) or not path.is_relative_to(docs.parent)
        return None if inside or not path.exists() else path

    def _link(self, node: nodes.Element, path: Path) -> nodes.Element:
        text, url = node.astext(), self.config.repository_url
        name = path.relative_to(Path(self.env.srcdir).resolve().parent)
        if url:
            return nodes.reference(text, text, refuri=f"{url}/tree/main/{name}")
        if path.is_dir():
            return nodes.inline(text, text)
        link = addnodes.download_reference(text, reftarget=f"/../{name}", refdoc=self.env.docname)
        link += nodes.literal(text, text, classes=["xref", "download", "myst"])
        return link


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("repository_url", None, "env")
    app.add_transform(RepositoryLinks)
    return {"parallel_read_safe": True}
