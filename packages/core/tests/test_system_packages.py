"""scripts/system_packages: silent and quick when nothing is missing, plain about what is."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts" / "system_packages"


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A directory to be the whole PATH: a machine without packages, whose user is not root."""
    add(tmp_path, "id", "echo 1000")
    return tmp_path


def add(path: Path, name: str, body: str) -> None:
    (path / name).write_text(f"#!/bin/sh\n{body}\n")
    (path / name).chmod(0o755)


def run(path: Path, *packages: str) -> subprocess.CompletedProcess[str]:
    shell = shutil.which("sh")
    assert shell is not None
    return subprocess.run(
        [shell, str(SCRIPT), *packages], env={"PATH": str(path)}, capture_output=True, text=True, timeout=60
    )


def test_nothing_to_do_when_all_is_there(bare) -> None:
    add(bare, "some-server", "exit 0")
    add(bare, "dpkg-query", '[ "$3" = libsome ] && echo installed')
    for packages in ([], ["some-server"], ["libsome", "some-server"]):
        done = run(bare, *packages)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_says_what_is_missing_where_nothing_can_be_installed(bare) -> None:
    done = run(bare, "some-server", "other")
    assert done.returncode == 1
    assert "Missing: some-server other." in done.stderr
    assert "There is no apt-get" in done.stderr
    assert "sudo apt-get install some-server other" in done.stderr


def test_says_what_to_do_when_sudo_asks_for_a_password(bare) -> None:
    add(bare, "apt-get", "exit 0")
    add(bare, "sudo", "exit 1")
    done = run(bare, "some-server")
    assert done.returncode == 1
    assert "sudo asks for a password" in done.stderr
    assert "sudo apt-get install some-server" in done.stderr


@pytest.mark.parametrize("root", [True, False])
def test_installs_what_is_missing_after_reading_the_lists_of_a_fresh_machine(bare, root) -> None:
    if root:
        add(bare, "id", "echo 0")
    else:
        add(bare, "sudo", 'echo "as root: $*" >> "$0.log"; shift; "$@"')
    add(bare, "env", 'shift; "$@"')
    add(bare, "true", "exit 0")
    add(bare, "apt-get", f'echo "$*" >> {bare}/apt.log; [ "$1" = update ] && : > {bare}/lists; [ -e {bare}/lists ]')
    done = run(bare, "some-server", "other")
    assert done.returncode == 0, done.stderr
    install = "install --quiet --yes --no-install-recommends some-server other"
    assert (bare / "apt.log").read_text().splitlines() == [install, "update --quiet", install]
    assert root or "as root: -n env" in (bare / "sudo.log").read_text()


def test_a_package_that_cannot_be_had_is_an_error(bare) -> None:
    add(bare, "id", "echo 0")
    add(bare, "env", 'shift; "$@"')
    add(bare, "apt-get", "exit 100")
    done = run(bare, "some-server")
    assert done.returncode == 1
    assert "Missing: some-server." in done.stderr
