"""rayjob.yaml, strictly: KubeRay's own fields by the names and kinds of its v1 types, pods by Kubernetes' own models."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import models

ROOT = Path(__file__).parents[2]
# Fields of KubeRay's v1 API and what they hold (ray-project/kuberay, ray-operator/apis/ray/v1: rayjob_types.go as of
# 0057210ed5a9, raycluster_types.go as of 026f143324c0; authOptions came with v1.5.1). "V1…": a model of Kubernetes.
KINDS: dict[str, dict[str, Any]] = {
    "RayJob": {"apiVersion": str, "kind": str, "metadata": "V1ObjectMeta", "spec": "RayJobSpec"},
    "RayJobSpec": {
        **dict.fromkeys(("activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"), int),
        **dict.fromkeys(("entrypoint", "runtimeEnvYAML", "jobId", "entrypointResources", "managedBy"), str),
        **dict.fromkeys(("shutdownAfterJobFinishes", "suspend"), bool),
        **dict.fromkeys(("entrypointNumCpus", "entrypointNumGpus"), float),
        **dict.fromkeys(("metadata", "clusterSelector"), dict[str, str]),
        "rayClusterSpec": "RayClusterSpec",
        "submitterPodTemplate": "V1PodTemplateSpec",
        "submissionMode": ("K8sJobMode", "HTTPMode", "InteractiveMode"),
    },
    "RayClusterSpec": {
        **{"rayVersion": str, "enableInTreeAutoscaling": bool, "suspend": bool},
        **{"headServiceAnnotations": dict[str, str], "autoscalerOptions": "AutoscalerOptions"},
        **{"headGroupSpec": "HeadGroupSpec", "workerGroupSpecs": ["WorkerGroupSpec"], "authOptions": "AuthOptions"},
    },
    "AuthOptions": {"mode": ("disabled", "token")},
    "HeadGroupSpec": {
        **{"serviceType": ("ClusterIP", "NodePort", "LoadBalancer"), "headService": "V1Service", "enableIngress": bool},
        **{"rayStartParams": dict[str, str], "template": "V1PodTemplateSpec"},
    },
    "WorkerGroupSpec": {
        **dict.fromkeys(("replicas", "minReplicas", "maxReplicas", "numOfHosts"), int),
        **{"groupName": str, "rayStartParams": dict[str, str], "template": "V1PodTemplateSpec"},
    },
    "AutoscalerOptions": {
        **{"resources": "V1ResourceRequirements", "image": str, "imagePullPolicy": str, "idleTimeoutSeconds": int},
        **{"env": ["V1EnvVar"], "envFrom": ["V1EnvFromSource"], "volumeMounts": ["V1VolumeMount"]},
        **{"securityContext": "V1SecurityContext", "upscalingMode": ("Default", "Aggressive", "Conservative")},
    },
}
REQUIRED = {
    "RayClusterSpec": {"headGroupSpec"},
    "HeadGroupSpec": {"rayStartParams", "template"},
    "WorkerGroupSpec": {"groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"},
}
PLAIN = {"str": str, "int": int, "bool": bool, "float": (int, float), "object": object, "datetime": str}


@pytest.fixture
def job() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "rayjob.yaml").read_text(encoding="utf-8"))


def faults(value: Any, kind: Any, where: str) -> list[str]:
    """Return what is not as its kind says."""
    if isinstance(kind, tuple):
        return [] if value in kind else [f"{where}: {value!r} is none of {kind}"]
    if isinstance(kind, list):
        if not isinstance(value, list):
            return [f"{where} is no list"]
        return [f for i, v in enumerate(value) for f in faults(v, kind[0], f"{where}.{i}")]
    if kind == dict[str, str]:
        fits = isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
        return [] if fits else [f"{where}: {value!r} is no mapping of texts"]
    if isinstance(kind, type):
        wanted = (int, float) if kind is float else kind
        fits = isinstance(value, wanted) and (kind is bool or not isinstance(value, bool))
        return [] if fits else [f"{where}: {value!r} is no {kind.__name__}"]
    if kind not in KINDS:
        return of_kubernetes(value, kind, where)
    missing = [f"{where}.{n} is missing" for n in REQUIRED.get(kind, set()) - set(value)]
    unknown = [f"{where}.{n} is unknown" for n in set(value) - set(KINDS[kind])]
    return (
        missing
        + unknown
        + [f for n in set(value) & set(KINDS[kind]) for f in faults(value[n], KINDS[kind][n], f"{where}.{n}")]
    )


def of_kubernetes(value: Any, kind: str, where: str) -> list[str]:
    """The same by the models that Kubernetes' client is generated with, from its OpenAPI."""
    inside = re.fullmatch(r"(list|dict)[\[(](?:str, ?)?(\w+)[\])]", kind)
    if inside and inside[1] == "list":
        return [f for i, v in enumerate(value) for f in of_kubernetes(v, inside[2], f"{where}.{i}")]
    if inside:
        return [f for k, v in value.items() for f in of_kubernetes(v, inside[2], f"{where}.{k}")]
    if kind in PLAIN:
        fits = isinstance(value, PLAIN[kind]) and (kind in ("bool", "object") or not isinstance(value, bool))
        return [] if fits else [f"{where}: {value!r} is no {kind}"]
    model = getattr(models, kind)
    if not isinstance(value, dict):
        return [f"{where}: {value!r} is no {kind}"]
    names = {v: k for k, v in model.attribute_map.items()}
    unknown = [f"{where}.{n} is unknown" for n in value.keys() - names.keys()]
    known = value.keys() & names.keys()
    return unknown + [f for n in known for f in of_kubernetes(value[n], model.openapi_types[names[n]], f"{where}.{n}")]


def pods(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    return [g["template"]["spec"] for g in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def test_every_field_is_kuberays_or_kubernetes(job):
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert faults(job, "RayJob", "job") == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda j: j["spec"].update(entryPoint="x"), "job.spec.entryPoint is unknown"),
        (lambda j: j["spec"].update(submissionMode="Http"), "'Http' is none of"),
        (lambda j: j["spec"]["rayClusterSpec"].update(authOptions={"mode": True}), "True is none of"),
        (lambda j: j["spec"]["rayClusterSpec"]["workerGroupSpecs"][0].pop("maxReplicas"), "maxReplicas is missing"),
        (lambda j: j["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"].update(n=0), "no mapping of texts"),
        (lambda j: pods(j)[0]["containers"][0].update(volumemounts=[]), "volumemounts is unknown"),
        (lambda j: pods(j)[1]["volumes"][0].update(emptydir={}), "emptydir is unknown"),
        (lambda j: pods(j)[2]["tolerations"][0].update(operator=1), "1 is no str"),
        (lambda j: pods(j)[2]["containers"][0]["resources"]["limits"].update(cpu=None), "limits"),
    ],
)
def test_a_wrong_field_is_seen(job, change, words):
    broken = copy.deepcopy(job)
    change(broken)
    assert any(words in fault for fault in faults(broken, "RayJob", "job"))


def test_pods_share_one_image_that_is_still_to_be_named(job):
    (image,) = {c["image"] for pod in pods(job) for c in pod["containers"]}
    # no image can be called so: what is forgotten does not start
    assert image.startswith("FILL IN: ")
    assert not re.fullmatch(r"[\w./:@-]+", image)
    assert "@sha256:" in image


def test_the_cluster_wants_a_token_and_holds_no_secret(job):
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert job["spec"]["rayClusterSpec"]["headGroupSpec"]["serviceType"] == "ClusterIP"
    names = [v["name"] for pod in pods(job) for c in pod["containers"] for v in c.get("env", [])]
    assert not [n for n in names if re.search("TOKEN|KEY|SECRET|PASSW", n)]
    for pod in pods(job):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert all(c["securityContext"]["allowPrivilegeEscalation"] is False for c in pod["containers"])


def test_workers_come_with_the_work_and_ray_is_the_one_of_the_pins(job):
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"] is True
    assert all(g["minReplicas"] == 0 for g in cluster["workerGroupSpecs"])
    assert {g["groupName"] for g in cluster["workerGroupSpecs"]} == {"gpu", "gpu-spot"}
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    mounted = {m["name"] for pod in pods(job) for c in pod["containers"] for m in c["volumeMounts"]}
    assert mounted == {v["name"] for pod in pods(job) for v in pod["volumes"]}
