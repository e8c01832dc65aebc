"""How the pages are built: `make docs`. MyST reads the Markdown, furo draws it, and a warning stops the build."""

from foretaste import __version__

project = "Foretaste"
author = "The Foretaste authors"
copyright = f"2026, {author}"
version = release = __version__

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = True

html_theme = "furo"
html_title = f"Foretaste {__version__}"
html_show_sphinx = False
