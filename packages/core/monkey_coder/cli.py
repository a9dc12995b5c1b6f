"""Entry point of `monkey-coder`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line."""
    # Read by the libraries when they are imported: the engine brings its own threads, and more of theirs only contend.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from monkey_coder.commands.app import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
