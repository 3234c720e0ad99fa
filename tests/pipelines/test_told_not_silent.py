"""What once passed in silence: an option that names nothing, a completion script for no command."""

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner
from vinnow.pipelines.cli.main import app
from vinnow.store.errors import InputError


@pytest.mark.parametrize("option", ["features", "targets"])
def test_a_feature_store_that_is_not_there_is_refused_though_the_selector_reads_none(tiny_pool, tmp_path, option):
    words = ["--pool", tiny_pool, "--selector", "random", "--budget", "5", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["select", *words, f"--{option}", "nosuch"])
    assert isinstance(result.exception, InputError)
    assert f"--{option} 'nosuch': no such feature store" in str(result.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_of_the_module_is_the_command_s(shell):
    words = [sys.executable, "-m", "vinnow", "--show-completion", shell]
    # the shell that is named; Typer would else look for one among the parents, and there may be none
    named = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    script = subprocess.run(words, capture_output=True, text=True, check=True, cwd="/", env=named).stdout
    assert "python" not in script
    assert "_VINNOW_COMPLETE" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        asked = {"_VINNOW_COMPLETE": "complete_bash", "COMP_WORDS": "vinnow sel", "COMP_CWORD": "1"}
        done = subprocess.run(words[:3], capture_output=True, text=True, env=os.environ | asked, cwd="/")
        assert done.stdout.split() == ["selectors", "select"]
