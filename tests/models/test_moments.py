"""Moments out of real optimizer files: torch's, Hugging Face's and LLaVA's groups, FSDP's names, DeepSpeed's engines."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import trained
from vinnow.models.moments import find_state, load_moments, plain_name, save_moments, state_digest
from vinnow.store.errors import InputError


def shapes_of(parameters):
    return {n: p.shape for n, p in parameters.items()}


def assert_moments(got, optimizer, parameters, names=None):
    for name in names or parameters:
        for kind in trained.KINDS:
            assert torch.equal(getattr(got, kind)[name], optimizer.state[parameters[name]][kind]), (kind, name)


@pytest.fixture(scope="module")
def adam(tiny_model):
    """One training by torch's AdamW; its state saved under any grouping is a file that such a trainer leaves."""
    model, batch, parameters = trained.prepare(tiny_model)
    return trained.adamw(model, batch, trained.layout(parameters, "one")), parameters


@pytest.fixture(scope="module")
def worlds(tiny_model, tmp_path_factory):
    """Folders of real DeepSpeed engines of all world sizes, one process a rank."""
    out = tmp_path_factory.mktemp("worlds")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, trained.__file__, tiny_model, str(out), port]
    environment = os.environ | {"PYTHONPATH": str(Path(trained.__file__).parent)}
    # a session of its own: a rank that waits for a dead one would wait for half an hour
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        errors = process.communicate(timeout=200)[1]
        assert process.returncode == 0, errors.decode()[-2000:]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return out


@pytest.fixture(params=sorted(trained.STAGES))
def engines(request, worlds):
    return request.param, worlds / f"world{request.param}"


def test_every_zero_stage_gives_what_the_engine_says(engines, tiny_model):
    world, out = engines
    _, _, parameters = trained.prepare(tiny_model)
    for stage in trained.STAGES[world]:
        truth = torch.load(out / f"stage{stage}" / "truth.pt", weights_only=True)
        got = load_moments(out / f"stage{stage}", shapes_of(parameters))
        assert (got.step, got.betas, got.eps, got.own_steps) == (trained.STEPS, (0.9, 0.999), 1e-8, {})
        for kind in trained.KINDS:
            assert sorted(truth[kind]) == sorted(parameters)
            for name, moment in truth[kind].items():
                assert torch.equal(getattr(got, kind)[name], moment), (stage, kind, name)
                assert stage == 0 or moment.any(), name  # a lost partition would be zeros


def test_a_folder_of_a_step_with_a_rank_missing_or_a_model_file_lost_is_refused(engines, tiny_model, tmp_path):
    world, out = engines
    if world != 2:
        pytest.skip("one world size will do")
    _, _, parameters = trained.prepare(tiny_model)
    (whole,) = (p for p in (out / "stage2").iterdir() if p.is_dir())
    for file in whole.iterdir():
        if "rank_1" not in file.name:
            (tmp_path / file.name).symlink_to(file)
    with pytest.raises(InputError, match="written by 2 ranks, but has the files of 1"):
        load_moments(tmp_path, shapes_of(parameters))
    (tmp_path / "zero_pp_rank_1_mp_rank_00_optim_states.pt").symlink_to(
        whole / "zero_pp_rank_1_mp_rank_00_optim_states.pt"
    )
    assert load_moments(tmp_path, shapes_of(parameters)).step == trained.STEPS
    (tmp_path / "mp_rank_00_model_states.pt").unlink()
    with pytest.raises(InputError, match="names the optimizer's parameters"):
        load_moments(tmp_path, shapes_of(parameters))


@pytest.mark.parametrize("kind", ["one", "huggingface", "llava"])
@pytest.mark.parametrize("name", ["optimizer.pt", "optimizer.bin"])
def test_index_keyed_files_of_each_trainer(tiny_model, tmp_path, kind, name):
    model, batch, parameters = trained.prepare(tiny_model)
    optimizer = trained.adamw(model, batch, trained.layout(parameters, kind))
    torch.save(optimizer.state_dict(), tmp_path / name)
    got = load_moments(tmp_path, shapes_of(parameters))
    assert (got.step, got.betas, got.eps) == (trained.STEPS, (0.85, 0.99), 1e-7)
    assert_moments(got, optimizer, parameters)
    # tapping only one part: the other's names are needed to count, not its shapes
    lora = [n for n in parameters if ".lora_" in n]
    some = load_moments(tmp_path, {n: parameters[n].shape for n in lora}, list(parameters))
    assert_moments(some, optimizer, parameters, lora)
    assert sorted(some.exp_avg) == sorted(lora)


def test_lora_alone_and_names_that_torch_wrote_down(tiny_model, tmp_path):
    model, batch, parameters = trained.prepare(tiny_model, parts=("lora",))
    optimizer = trained.adamw(model, batch, trained.layout(parameters, "llava"))
    assert [len(g["params"]) for g in optimizer.param_groups] == [28, 0, 0, 0]
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    assert_moments(load_moments(tmp_path, shapes_of(parameters)), optimizer, parameters)
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad][::-1]
    optimizer = trained.adamw(model, batch, named)
    torch.save(optimizer.state_dict(), tmp_path / "named.pt")
    assert_moments(load_moments(tmp_path / "named.pt", shapes_of(parameters)), optimizer, parameters)


def test_fsdp_names_and_ours_come_back(adam, tmp_path):
    optimizer, parameters = adam
    full = {
        "state": {
            "_fsdp_wrapped_module.base_model.model." + n.replace("layers.0.", "layers.0._fsdp_wrapped_module."): dict(
                optimizer.state[p]
            )
            for n, p in parameters.items()
        },
        "param_groups": [{"params": list(parameters), "betas": (0.85, 0.99), "eps": 1e-7}],
    }
    torch.save(full, tmp_path / "optimizer.bin")
    got = load_moments(tmp_path, shapes_of(parameters))
    assert_moments(got, optimizer, parameters)
    file = tmp_path / "ours" / "moments.safetensors"
    file.parent.mkdir()
    save_moments(file, got.exp_avg, got.exp_avg_sq, got.step, got.betas, got.eps)
    again = load_moments(file.parent, shapes_of(parameters), device="cpu")
    assert_moments(again, optimizer, parameters)
    assert (again.step, again.betas, again.eps) == (trained.STEPS, (0.85, 0.99), 1e-7)
    assert again.digest == state_digest(file) != got.digest
    assert find_state(file.parent) == file


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("base_model.model.model.layers.3.q_proj.lora_A.default.weight", "language_model.layers.3.q_proj.lora_A.weight"),
        ("module.model.mm_projector.2.bias", "multi_modal_projector.linear_2.bias"),
        ("language_model.model.layers.0.mlp.up_proj.weight", "language_model.layers.0.mlp.up_proj.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("model.base_model.model.lm_head.weight", "lm_head.weight"),
    ],
)  # fmt: skip
def test_older_names_mean_the_same_parameter(name, plain):
    assert plain_name(name) == plain


def test_a_parameter_with_fewer_steps_keeps_its_own_count(tiny_model, tmp_path):
    model, batch, parameters = trained.prepare(tiny_model)
    optimizer = trained.adamw(model, batch, trained.layout(parameters, "huggingface"))
    late = next(n for n in parameters if "projector" in n)
    optimizer.state[parameters[late]]["step"] -= 2
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    got = load_moments(tmp_path, shapes_of(parameters))
    assert (got.step, got.own_steps) == (3, {late: 1})


def test_what_does_not_fit_is_named(adam, tiny_model, tmp_path):
    optimizer, parameters = adam
    shapes, first = shapes_of(parameters), next(iter(parameters))
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    with pytest.raises(InputError, match=r"holds 32 parameters in groups of \[32\], but 28 trained"):
        load_moments(tmp_path, {n: s for n, s in shapes.items() if "lora" in n})
    with pytest.raises(InputError, match=rf"{first} has shape \[7\], entry 0 has \[64, 64\]"):
        load_moments(tmp_path, shapes | {first: torch.Size([7])})
    with pytest.raises(InputError, match=r"neither moments\.safetensors"):
        load_moments(tiny_model, shapes)
    with pytest.raises(InputError, match="no such file or folder"):
        load_moments(tmp_path / "nowhere", shapes)
    named = {"state": {n: dict(optimizer.state[p]) for n, p in parameters.items()}, "param_groups": []}
    gone = next(n for n in parameters if "layers.1.mlp.up_proj.lora_A" in n)
    torch.save(named | {"state": {n: s for n, s in named["state"].items() if n != gone}}, tmp_path / "gone.pt")
    with pytest.raises(InputError, match=rf"no moments of '{gone}' \(1 missing.*nearest: \['model.*up_proj"):
        load_moments(tmp_path / "gone.pt", shapes)
    torch.save(named, tmp_path / "bare.pt")
    with pytest.raises(InputError, match="one pair of betas"):
        load_moments(tmp_path / "bare.pt", shapes)
    sgd = torch.optim.SGD(parameters.values(), lr=0.1, momentum=0.9)
    for p in parameters.values():
        p.grad = torch.ones_like(p)
    sgd.step()
    torch.save(sgd.state_dict(), tmp_path / "sgd.pt")
    with pytest.raises(InputError, match="no Adam's state"):
        load_moments(tmp_path / "sgd.pt", shapes)


def test_groups_that_two_trainers_would_make_are_ambiguous(tmp_path):
    """Two square matrices and sizes that fit two layouts: guessing would swap them."""
    names = ["model.language_model.a.weight", "model.multi_modal_projector.linear_1.weight"]
    parameters = {n: torch.nn.Parameter(torch.zeros(2, 2)) for n in names}
    optimizer = torch.optim.AdamW([{"params": [p]} for p in parameters.values()])
    for p in parameters.values():
        p.grad = torch.ones(2, 2)
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    shapes = {n: p.shape for n, p in parameters.items()}
    # vinnow leaves no empty groups, LLaVA always makes four: two groups tell them apart
    swapped = load_moments(tmp_path, shapes)
    assert torch.equal(swapped.exp_avg[names[1]], optimizer.state[parameters[names[0]]]["exp_avg"])
    values = torch.load(tmp_path / "optimizer.pt", weights_only=True)
    values["param_groups"] += [{**values["param_groups"][0], "params": []}]
    torch.save(values, tmp_path / "optimizer.pt")
    with pytest.raises(InputError, match="LLaVA's four groups and vinnow's groups fit all shapes"):
        load_moments(tmp_path, shapes)


def test_a_file_that_carries_code_is_not_run(tmp_path, tiny_model):
    _, _, parameters = trained.prepare(tiny_model)
    torch.save({"state": {}, "where": Path("x")}, tmp_path / "optimizer.pt")
    with pytest.raises(InputError, match=r"carries objects of \['pathlib"):
        load_moments(tmp_path, shapes_of(parameters))
    (tmp_path / "optimizer.pt").write_bytes(b"none")
    with pytest.raises(InputError, match=r"no file of torch\.save"):
        load_moments(tmp_path, shapes_of(parameters))
