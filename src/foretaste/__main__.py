"""`python -m foretaste`."""

from foretaste.cli import main

main()
