"""``python -m facula``: the same as the ``facula`` command."""

import sys

from facula.cli import main

if __name__ == "__main__":
    sys.exit(main())
