"""cluster.yaml and its twin on Google Cloud against Ray's own checks, and what those do not look at: dashboard, resources,
images, spot workers, secrets."""

import copy
import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]
# vCPUs and GPUs of the instance types in use (AWS's and Google's pages of them)
INSTANCES = {
    **{"m6i.2xlarge": (8, 0), "g6e.4xlarge": (16, 1), "p5.48xlarge": (192, 8)},
    **{"n2-standard-8": (8, 0), "g2-standard-16": (16, 1), "a3-highgpu-8g": (208, 8)},
}
AWS, GCP = "cluster.yaml", "cluster-gcp.yaml"


@pytest.fixture(params=[AWS, GCP])
def config(request) -> dict:
    return yaml.safe_load((ROOT / request.param).read_text())


@pytest.fixture
def text(config) -> str:
    return (ROOT / (AWS if config["provider"]["type"] == "aws" else GCP)).read_text()


def machine_of(node: dict) -> str:
    return node["node_config"].get("InstanceType") or node["node_config"]["machineType"]


def is_spot(node: dict) -> bool:
    """As the clouds' APIs say it: EC2's InstanceMarketOptions, Compute Engine's provisioningModel."""
    inside = node["node_config"]
    if "InstanceMarketOptions" in inside:
        options = inside["InstanceMarketOptions"]
        assert options["MarketType"] == "spot"
        # a one-time request: a persistent one would start a node that Ray knows nothing of
        assert options["SpotOptions"] == {
            "SpotInstanceType": "one-time",
            "InstanceInterruptionBehavior": "terminate",
        }
        return True
    scheduling = inside.get("scheduling", {})
    if "guestAccelerators" in inside or node["resources"].get("GPU"):
        assert "machineType" not in inside or scheduling["onHostMaintenance"] == "TERMINATE"
    if scheduling.get("provisioningModel") == "SPOT":
        assert scheduling["instanceTerminationAction"] == "DELETE"
        assert scheduling["automaticRestart"] is False
        return True
    return False


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


def gpu(config: dict) -> dict:
    return next(n for n in config["available_node_types"].values() if "GPU" in n["resources"])


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda c: c.update(idle_timeout_minute=5), jsonschema.ValidationError),
        (lambda c: c.update(head_node_type="haed"), ValueError),
        (lambda c: gpu(c).update(min_worker=1), jsonschema.ValidationError),
        (lambda c: gpu(c).pop("resources"), jsonschema.ValidationError),
        (lambda c: gpu(c).update(min_workers=99), ValueError),
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


def test_the_cluster_wants_a_token_and_the_file_holds_none(config, text):
    assert any("RAY_AUTH_MODE=token" in c for c in config["setup_commands"])
    assert config["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 600 ~/.ray/auth_token" in config["setup_commands"][0]
    assert not re.search(r"AKIA[0-9A-Z]{16}|aws_secret|private_key|BEGIN [A-Z ]*PRIVATE KEY|RAY_AUTH_TOKEN=", text)


def test_resources_are_those_of_the_instances(config):
    types = config["available_node_types"]
    assert "GPU" not in types[config["head_node_type"]]["resources"]
    for name, node in types.items():
        cpus, gpus = INSTANCES[machine_of(node)]
        assert node["resources"]["CPU"] == cpus, name
        assert node["resources"].get("GPU", 0) == gpus, name
    workers = [n for k, n in types.items() if k != config["head_node_type"]]
    assert all(n["min_workers"] == 0 for n in workers)
    assert sum(n["max_workers"] for n in workers) == config["max_workers"]


def test_each_usual_gpu_worker_has_a_twin_on_spot_that_is_started_first(config):
    types = config["available_node_types"]
    assert not is_spot(types[config["head_node_type"]])
    spots = {n: node for n, node in types.items() if is_spot(node)}
    assert list(spots) == [n for n in types if n.endswith("_spot")]
    for name, node in spots.items():
        usual = types[name.removesuffix("_spot")]
        assert not is_spot(usual)
        assert (machine_of(node), node["resources"]) == (machine_of(usual), usual["resources"])
        assert node["priority"] > usual["priority"]


def test_what_is_a_users_own_is_marked_and_cannot_be_taken_for_a_name():
    """Google names no project `FILL IN: …`, and none in capitals: what is forgotten is refused by its API."""
    twin = yaml.safe_load((ROOT / GCP).read_text())
    assert twin["provider"]["project_id"].startswith("FILL IN: ")
    named = re.findall(r"projects/([^/]+)/|@([^.]+)\.iam", (ROOT / GCP).read_text())
    assert {a or b for a, b in named} == {"FILL-IN-YOUR-PROJECT"}
    disks = [d for n in twin["available_node_types"].values() for d in n["node_config"]["disks"]]
    (image,) = {d["initializeParams"]["sourceImage"] for d in disks}
    assert re.fullmatch(r"projects/[\w-]+/global/images/[\w-]+", image)  # one image, no family
    assert all(d["autoDelete"] is True for d in disks)


def test_all_nodes_start_from_one_image():
    config = yaml.safe_load((ROOT / AWS).read_text())
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


def shown_commands(file: str = AWS) -> list[str]:
    """Return all commands, those in comments too, a line each."""
    text = (ROOT / file).read_text()
    bare = re.sub(r"^(\s*)# (- |  )", r"\1\2", text, flags=re.M)
    steps = re.split(r"^\s*- ", bare.split("initialization_commands:")[1], flags=re.M)
    return [" ".join(step.split()) for step in steps]


def test_packages_are_those_of_one_day_and_of_the_pins():
    installs = [c for file in (AWS, GCP) for c in shown_commands(file) if "apt-get" in c]
    assert len(installs) == 6
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
