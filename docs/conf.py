"""The site: Sphinx with MyST notebooks, which run while it is built, and the theme furo.

    python -m sphinx -W --keep-going -j auto -b html docs docs/_build/html

It needs `pip install -e '.[docs]'`, and nothing over the network.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(DOCS / "extensions"), str(ROOT)]
# The notebooks import this tree, too.  Bars of progress are for
# people who wait; `graphc` in a shell is the one beside this Python.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.getenv("PYTHONPATH")])])
os.environ["TQDM_DISABLE"] = "1"
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

import graphc  # noqa: E402 - found by the path above

project = "graphc"
author = "The graphc developers"
project_copyright = author
release = version = graphc.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "docstrings", "pictures_inline", "whole_streams"]
exclude_patterns = ["_build"]

# MyST: links to headings work as they do on a code host.
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

# Every notebook runs, in a folder of its own, each time.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_timeout = 120
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True

autoclass_content = "both"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
autodoc_type_aliases = {name: name for name in ("Array", "ArrayLike", "Names")}
default_role = "code"
smartquotes = False

html_theme = "furo"
html_title = "graphc"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
highlight_language = "none"  # blocks say what they are; commands and listings are nothing
pygments_style = "default"
pygments_dark_style = "monokai"
