"""Configuration of Sphinx: `make docs`."""

import warnings

import skdl

project = "skdl"
author = "The skdl developers"
project_copyright = "2026, the skdl developers"
version = release = skdl.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "auto_examples/**/*.ipynb", "auto_examples/**/*.py"]

# The API page names the methods to show: those inherited from scikit-learn link into scikit-learn's own pages.
numpydoc_show_class_members = False
autodoc_member_order = "bysource"
# The parameter sections say more than the annotations.
autodoc_typehints = "none"
maximum_signature_line_length = 100
myst_heading_anchors = 3

html_theme = "pydata_sphinx_theme"
html_title = "skdl"
html_theme_options = {"show_prev_next": False, "secondary_sidebar_items": ["page-toc"]}
# Only the examples have pages below them.
html_sidebars = {"*": [], "auto_examples/*": ["sidebar-nav-bs"]}
html_show_sourcelink = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "show_memory": False,
    "write_computation_times": False,
    "download_all_examples": False,
    "abort_on_example_error": True,
}

# plt.show() has no window here.
warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")
