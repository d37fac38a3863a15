"""``python -m mser`` is the command ``mser``."""

from .cli import main

main()
