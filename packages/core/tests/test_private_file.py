"""A file with a secret is this user's alone, and nothing is left of one that cannot be written."""

from __future__ import annotations

import errno
import stat
import subprocess
import sys
from pathlib import Path

from monkey_coder.private_file import written_beside

FULL = """
import resource, signal, sys
from pathlib import Path
from monkey_coder.private_file import written_beside
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
try:
    written_beside(Path(sys.argv[1]), b"x" * 100)
except OSError as error:
    sys.stdout.write(str(error.errno))
"""


def test_it_is_for_this_user_alone_and_the_old_one_stays_until_it_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"old")
    fresh = written_beside(path, b"new")
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o600
    assert path.read_bytes() == b"old"
    fresh.replace(path)
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_left_where_the_disk_is_full(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "secret")], capture_output=True, text=True, check=True
    )
    assert done.stdout == str(errno.EFBIG)
    assert not list(tmp_path.iterdir())
