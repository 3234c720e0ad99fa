"""cluster.yaml against Ray's own checks, and what those do not look at: dashboard, resources, secrets."""

import copy
import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]
# vCPUs and GPUs of the instance types in use (AWS's instance type pages)
INSTANCES = {"m6i.2xlarge": (8, 0), "g6e.4xlarge": (16, 1), "p5.48xlarge": (192, 8)}


@pytest.fixture
def config() -> dict:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def test_ray_accepts_it(config):
    ready = prepare_config(copy.deepcopy(config))
    validate_config(ready)
    # Ray fills in what is left out: nothing that matters may come from its defaults
    for key in (
        "setup_commands",
        "head_start_ray_commands",
        "worker_start_ray_commands",
        "file_mounts",
        "auth",
    ):
        assert key in config
    assert ready["head_setup_commands"] == config["setup_commands"] + config["head_setup_commands"]
    assert not ready.get("docker")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda c: c.update(idle_timeout_minute=5), jsonschema.ValidationError),
        (lambda c: c.update(head_node_type="haed"), ValueError),
        (lambda c: c["available_node_types"]["gpu_l40s"].update(min_worker=1), jsonschema.ValidationError),
        (lambda c: c["available_node_types"]["gpu_l40s"].pop("resources"), jsonschema.ValidationError),
        (lambda c: c["available_node_types"]["gpu_l40s"].update(min_workers=99), ValueError),
    ],
    ids=["unknown key", "head type", "unknown node key", "no resources", "more than max"],
)
def test_ray_refuses_a_broken_copy(config, change, error):
    broken = copy.deepcopy(config)
    change(broken)
    with pytest.raises(error):
        validate_config(prepare_config(broken))


def test_the_dashboard_listens_on_loopback_alone(config):
    starts = [c for c in config["head_start_ray_commands"] if "ray start" in c]
    assert len(starts) == 1
    assert re.findall(r"--dashboard-host[= ](\S+)", starts[0]) == ["127.0.0.1"]
    assert not any("dashboard-host" in c for c in config["worker_start_ray_commands"])


def test_the_cluster_wants_a_token_and_the_file_holds_none(config):
    assert any("RAY_AUTH_MODE=token" in c for c in config["setup_commands"])
    assert config["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 600 ~/.ray/auth_token" in config["setup_commands"][0]
    text = (ROOT / "cluster.yaml").read_text()
    assert not re.search(r"AKIA[0-9A-Z]{16}|aws_secret|BEGIN [A-Z ]*PRIVATE KEY|RAY_AUTH_TOKEN=", text)


def test_resources_are_those_of_the_instances(config):
    types = config["available_node_types"]
    assert "GPU" not in types[config["head_node_type"]]["resources"]
    for name, node in types.items():
        cpus, gpus = INSTANCES[node["node_config"]["InstanceType"]]
        assert node["resources"]["CPU"] == cpus, name
        assert node["resources"].get("GPU", 0) == gpus, name
    workers = [n for k, n in types.items() if k != config["head_node_type"]]
    assert all(n["min_workers"] == 0 for n in workers)
    assert sum(n["max_workers"] for n in workers) == config["max_workers"]


def test_all_nodes_start_from_one_image(config):
    nodes = [n["node_config"] for n in config["available_node_types"].values()]
    (image,) = {n["ImageId"] for n in nodes}
    # an image's id, or one version of a parameter: neither becomes another image by itself
    assert re.fullmatch(r"ami-[0-9a-f]{8,17}|resolve:ssm:/[\w/-]+:[1-9]\d*", image)
    assert all(n["MetadataOptions"]["HttpTokens"] == "required" for n in nodes)


def test_setup_installs_the_synced_folder_with_its_pins(config):
    (folder,) = [k for k, v in config["file_mounts"].items() if v == "."]
    assert any(c.startswith(f"cd {folder.replace('/home/ubuntu', '~')} && make venv") for c in config["setup_commands"])
    assert {".venv", "/runs", ".git"} <= set(config["rsync_exclude"])


def test_no_folder_of_the_package_stays_behind(config):
    """An rsync pattern without a slash leaves out every folder of that name, at any depth."""
    folders = {name for path in ROOT.rglob("*.py") for name in path.relative_to(ROOT).parts[:-1]}
    assert "runs" in folders
    assert not folders & set(config["rsync_exclude"]) - {".venv", "build", "__pycache__"}


def shown_commands() -> list[str]:
    """Return all commands, those in comments too, a line each."""
    text = (ROOT / "cluster.yaml").read_text()
    bare = re.sub(r"^(\s*)# (- |  )", r"\1\2", text, flags=re.M)
    steps = re.split(r"^\s*- ", bare.split("initialization_commands:")[1], flags=re.M)
    return [" ".join(step.split()) for step in steps]


def test_packages_are_those_of_one_day_and_of_the_pins():
    installs = [c for c in shown_commands() if "apt-get" in c]
    assert len(installs) == 4
    days = [re.findall(r"APT::Snapshot=(\d{8}T\d{6}Z)", c) for c in installs]
    assert len({day for stamps in days for day in stamps}) == 1
    assert all(len(stamps) == c.count("apt-get ") for stamps, c in zip(days, installs, strict=True))
    clones = [c for c in shown_commands() if "git clone" in c]
    assert all(re.search(r"--branch v\d+\.\d+\.\d+ ", c) for c in clones)
    pins = (ROOT / "constraints.txt").read_text().split()
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    lines = re.findall(r"^\t\$\(PIP\) install.*$", (ROOT / "Makefile").read_text(), flags=re.M)
    assert len(lines) == 3
    assert all("-c constraints.txt" in line for line in lines)


def test_the_mount_that_is_shown_encrypts_on_the_way():
    mounts = [c for c in shown_commands() if re.search(r"\bmount -t ", c)]
    assert mounts
    assert all(re.search(r"mount -t efs -o (\w+,)*tls(,\w+)* ", c) for c in mounts)
    page = (ROOT / "docs/cluster.md").read_text()
    assert "-o tls" in page
    assert "latest/ami-id" not in (ROOT / "cluster.yaml").read_text()
