"""Files that hold secrets: readable by this user alone from the first moment, and never seen half written."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import mkstemp


def written_beside(path: Path, content: bytes) -> Path:
    """Write a file under a name of its own, in the directory of `path`, for the caller to put in place in one step.

    Raises:
        OSError: It cannot be written; nothing of it is left.
    """
    descriptor, name = mkstemp(prefix=f"{path.name}.", dir=path.parent)
    fresh = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    return fresh
