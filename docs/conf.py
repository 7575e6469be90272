"""How the site is built: `make docs`, from a fresh clone, without a network."""

import sys
import tomllib
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(DOCS / "_ext")]

import mfp_neurons  # noqa: E402 (this checkout's, whether installed or not)

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Where the checkout is published, once pyproject.toml says so. Until then edit links open the source on disk.
REPOSITORY = PYPROJECT.get("urls", {}).get("Repository")

project = "mfp-neurons"
author = "The mfp-neurons developers"
copyright = "the mfp-neurons developers, MIT license"
release = version = mfp_neurons.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx-mathjax-offline",
    "myst_nb",
    "sphinx_copybutton",
    "sphinx_design",
    "accessible",
    "benchmark_pages",
    "command_line",
    "drawings",
    "interactive_pages",
    "repository_links",
    "shapes",
]
exclude_patterns = ["_build", "_ext", "interactive"]
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!mfp_neurons).*"),  # PyTorch's and Python's own inventories would have to be fetched
    (
        r"py:class",
        r"mfp_neurons\..*\.(Events|Facts|FusedNorm|Graph|Model|ResNet19|VGGSNN)",
    ),  # named in signatures, not public
    ("py:mod", r"mfp_neurons\.deploy\.graph"),
]

# --- Markdown and notebooks

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath", "fieldlist", "substitution"]
myst_substitutions = {"version": version}
myst_heading_anchors = 4
myst_dmath_double_inline = True
# Pages that are notebooks in Markdown are executed, and again only when they change. The notebooks of
# examples/ train for minutes: they are shown as committed, and tests/test_notebooks.py runs them small.
nb_execution_mode = "cache"
nb_execution_cache_path = str(DOCS / "_build" / "notebooks")
nb_execution_excludepatterns = ["tutorials/snntorch_*"]
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True
repository_url = REPOSITORY

# --- the API

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_inherit_docstrings = False  # the frameworks' own are not ours to show
autodoc_typehints = "signature"
autodoc_type_aliases = {"Order": "Order", "SpikeFunction": "SpikeFunction", "Kernel": "Kernel"}
add_module_names = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Shape"]
napoleon_use_ivar = True
napoleon_use_param = False
toc_object_entries_show_parents = "hide"

# --- HTML

# pydata-sphinx-theme: the theme of NumPy and of SpikingJelly, so its habits are known; light and dark, tested
# for accessibility, and one dependency fewer than sphinx-book-theme, which is built upon it.
html_theme = "pydata_sphinx_theme"
html_title = f"mfp-neurons {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_show_search_summary = False  # would fetch pages, which a browser refuses on a file system
html_show_sourcelink = False
html_copy_source = False
html_domain_indices = False
html_theme_options = {
    "logo": {"text": f"mfp-neurons {version}"},
    "use_edit_page_button": True,
    "header_links_before_dropdown": 8,
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_toc_level": 2,
    "collapse_navigation": True,
    "navigation_with_keys": False,
    "search_as_you_type": False,
}
html_sidebars = {page: [] for page in ("index", "install", "idea", "try", "search", "genindex")}
html_context = {
    "edit_page_url_template": "{{ sources }}/{{ file_name }}",
    "default_mode": "auto",
    "sources": f"{REPOSITORY}/edit/main/docs" if REPOSITORY else DOCS.as_uri(),
    "edit_page_provider_name": "",
}
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"
