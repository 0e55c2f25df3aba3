"""The documentation site: `make docs` builds it to build/docs, and a warning is an error.

Nothing comes from another machine: no intersphinx, no web fonts, no scripts or pictures of other sites.
`_site.py` looks for them in the built pages.
"""

from __future__ import annotations

import sys
from pathlib import Path

import foleypref

sys.path.insert(0, str(Path(__file__).parent))

project = "foleypref"
author = "foleypref maintainers"
project_copyright = f"{author}, Apache-2.0"
release = version = foleypref.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "_site"]
smartquotes = False
highlight_language = "none"  # commands and layouts stand in indented blocks, which say no language
nitpick_ignore_regex = [
    ("py:.*", r"(?!foleypref\.).*"),  # other packages' names are on other sites
    ("py:class", r"foleypref\.networks\..*"),  # architectures have no page in the reference
]

myst_heading_anchors = 3  # page.md#heading is then checked like any link

autodoc_member_order = "bysource"
autodoc_default_options = {
    "members": True,
    "ignore-module-all": True,
    "exclude-members": "model_config, model_post_init",
}

html_theme = "furo"
html_title = f"foleypref {release}"
html_copy_source = False
