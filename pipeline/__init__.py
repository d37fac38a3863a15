"""The two stages, over what they share: corpora, metrics, and the files of an encoder."""

import getpass
import os

try:
    getpass.getuser()
except (KeyError, OSError):
    # In a container a user may have a number and no name. PyTorch asks for the name.
    os.environ["USER"] = str(os.getuid())
