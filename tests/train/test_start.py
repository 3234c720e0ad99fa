"""What a training's processes import before their first step, and what they do not."""

import gc
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from vinnow.store.importing import uncollected

PARENT = str(Path(__file__).parents[3])
CODE = f"""
import sys
sys.path.insert(0, {PARENT!r})
from vinnow.train import worker
assert "torch" not in sys.modules  # Ray's controller of a training imports no more than this
from vinnow.train.deepspeed_json import leave_muon
from deepspeed.runtime import compiler
real = compiler.compile
leave_muon()
assert compiler.compile is real
from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam
assert "torch._inductor.compile_fx" not in sys.modules
"""


def test_a_controller_needs_no_torch_and_a_worker_no_compiler():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", CODE], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_cycles_are_collected_again_after_an_import():
    with pytest.raises(ModuleNotFoundError), uncollected():
        importlib.import_module("no_such_module" if not gc.isenabled() else "gc")
    assert gc.isenabled()
    gc.disable()
    with uncollected():
        pass
    assert not gc.isenabled()
    gc.enable()
