"""`make` on machines that lack something: one line that names the way out, and no half-made environment."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--no-print-directory", "-C", str(ROOT), *arguments]
    # the suite itself may run below make: its flags must not reach this one
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=env)


def fake_python(folder: Path, refuses: str) -> Path:
    """A python3 that fails on every `-c` program that contains `refuses`, and does nothing otherwise."""
    path = folder / "python3"
    path.write_text(f'#!/bin/sh\ncase "$2" in *{refuses}*) exit 1;; esac\necho "Python 3.9.2"\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("refuses", "words"),
    [("version_info", ["3.11 or newer", "3.9.2"]), ("ensurepip", ["apt install python3-venv"])],
)
def test_an_unfit_python_is_named(tmp_path, refuses, words):
    venv = tmp_path / "venv"
    done = make("venv", f"VENV={venv}", f"PYTHON={fake_python(tmp_path, refuses)}")
    assert done.returncode != 0
    assert all(word in done.stderr for word in words), done.stderr
    assert not venv.exists()


def test_a_missing_python_is_named(tmp_path):
    done = make("venv", f"VENV={tmp_path / 'venv'}", "PYTHON=python3-that-is-not-there")
    assert done.returncode != 0
    assert "apt install python3" in done.stderr


def test_an_environment_is_made_again_only_when_its_pins_change(tmp_path):
    stamp = tmp_path / ".installed"
    stamp.touch()
    newest = max((ROOT / n).stat().st_mtime for n in ("constraints.txt", "pyproject.toml"))
    os.utime(stamp, (newest + 10, newest + 10))
    assert make("-n", "venv", f"VENV={tmp_path}").stdout.strip().endswith("Nothing to be done for 'venv'.")
    os.utime(stamp, (newest - 10, newest - 10))
    assert "install -c constraints.txt" in make("-n", "venv", f"VENV={tmp_path}").stdout


def test_help_lists_every_target():
    shown = {line.split()[1] for line in make("help").stdout.splitlines()}
    assert {"venv", "demo", "test", "lint", "types", "bench", "clean"} <= shown
