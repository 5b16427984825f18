"""`python -m stream_server` is the `starling` command."""

import sys

from stream_server.cli import main

if __name__ == "__main__":
    sys.exit(main())
