"""For all tests here: a disk of their own, so small that it is soon full."""

import contextlib
import os
import subprocess

import pytest
from vinnow.store.claim import MARK


class Disk:
    """A disk of its own, so small that it is soon full."""

    def __init__(self, path) -> None:
        self.path, self.filler = path, path / "filler"

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.path)], check=True)

    def fill(self, but: int = 0) -> None:
        """Leave `but` free bytes, of whole pages."""
        with contextlib.suppress(OSError), open(self.filler, "wb", buffering=0) as sink:
            while True:
                sink.write(bytes(4096))
        os.truncate(self.filler, self.filler.stat().st_size - but)

    def clear(self) -> None:
        self.filler.unlink(missing_ok=True)

    def files(self):
        """Return the names of files, without marks and the filler."""
        return {p.name for p in self.path.rglob("*") if p.is_file()} - {MARK, self.filler.name}


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk"
    path.mkdir()
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)], capture_output=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield Disk(path)
    subprocess.run(["umount", "-l", str(path)], check=True)
