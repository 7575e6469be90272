"""``{drawing} name``: figures/name_light.svg on a light page, figures/name_dark.svg on a dark one."""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class Drawing(SphinxDirective):
    """The content is the alternative text of both."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        words = " ".join(self.content)
        if not words:
            raise self.error("a drawing needs an alternative text")
        pair = [
            nodes.image(
                uri=f"/figures/{self.arguments[0]}_{scheme}.svg",
                alt=words,
                classes=["drawing", f"only-{scheme}"],
            )
            for scheme in ("light", "dark")
        ]
        for image in pair:
            self.set_source_info(image)
        return list(pair)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("drawing", Drawing)
    return {"parallel_read_safe": True}
