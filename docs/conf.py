import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "extensions")]

project = "AI4Sim"
author = "AI4Sim developers"
copyright = author
html_title = "AI4Sim"
html_theme = "furo"
html_show_sourcelink = False
html_math_renderer = "mathml"
html_theme_options = {"navigation_with_keys": True}
highlight_language = "none"  # literal blocks are commands
pygments_style = "friendly"
pygments_dark_style = "monokai"
exclude_patterns = ["_build", "jupyter_execute"]

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "myst_nb",  # the notebook pages
    "benchmark_table",
    "mathml",
]

# notebooks are executed by `nox -s notebooks`, and shown as they are stored
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]

autodoc_default_options = {"members": True, "show-inheritance": True, "ignore-module-all": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autoclass_content = "class"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
add_module_names = False
toc_object_entries_show_parents = "hide"
