"""The site: `make docs` builds it, with warnings as errors, and without a network."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(DOCS / "_ext"))

project = "deltalens"
author = "The deltalens authors"
version = release = re.findall(
    r'^__version__ = "(.+)"', (ROOT / "python/deltalens/version.py").read_text(), re.MULTILINE
)[0]
language = "en"
smartquotes = False  # docstrings quote values

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "command_options",
    "formulas",
    "other_files",
    "public_names",
    "table_of_contents",
]
exclude_patterns = ["_ext"]
nitpicky = True
nitpick_ignore_regex = [  # of types only the package's public names have a place on the site
    (r"py:(class|data|obj)", r"(?!deltalens\.\w+$).*"),
]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
myst_dmath_double_inline = True
# Where files are that are no pages, such as https://github.com/OWNER/NAME; without it the site
# has copies of them.
repository = os.environ.get("DELTALENS_REPOSITORY", "")

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = False

html_theme = "furo"
html_title = f"deltalens {release}"
html_css_files = ["deltalens.css"]
html_static_path = ["_static"]
html_math_renderer = "mathml"
html_copy_source = False
copybutton_prompt_text = r">>> |\$ "
copybutton_prompt_is_regexp = True
linkcheck_timeout = 20
