"""What lies in jobs/cluster for others to use, held to the code: image, manifest, dashboard, and their page."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import yaml

import pipeline
from jobs.command import check_overrides
from jobs.submit import stop_wait
from pipeline.cluster.metrics import CATALOGUE, Failure, Kind
from pipeline.settings import RunSettings, Settings
from tests.cluster.conftest import PAGE, ROOT

FOLDER = ROOT / "jobs" / "cluster"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
RAYJOB = yaml.safe_load((FOLDER / "rayjob.yaml").read_text())
POLICY = yaml.safe_load((FOLDER / "networkpolicy.yaml").read_text())
DASHBOARD = json.loads((FOLDER / "grafana.json").read_text())
PACKAGES = {"pipeline", "model", "conf", "jobs"}


def instructions(keyword: str) -> list[str]:
    """The arguments of every such instruction, continued lines joined."""
    lines = DOCKERFILE.replace("\\\n", " ").splitlines()
    return [line.removeprefix(f"{keyword} ") for line in lines if line.startswith(f"{keyword} ")]


def ray_version() -> str:
    [version] = re.findall(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    return version


def test_image_holds_the_packages_and_the_pinned_versions():
    """The image cannot be built where the tests run: what it copies and installs is read instead."""
    copied = [path for copy in instructions("COPY") for path in copy.split()[:-1]]
    assert set(copied) == PACKAGES | {"pyproject.toml", "requirements.lock"}
    assert all((ROOT / path).exists() for path in copied)
    installs = [step for run in instructions("RUN") for step in run.split("&&") if "pip install" in step]
    assert [step.split("pip install ")[1].split(" &&")[0].strip() for step in installs] == [
        "--require-hashes -r requirements.lock",
        "--no-deps .",
    ]
    assert not re.search(r"^(ADD|.*curl .*\| *sh)", DOCKERFILE, re.MULTILINE)


def test_the_lock_has_the_pinned_versions_and_what_the_package_needs_each_with_hashes():
    """`make lock` was forgotten, or a line came in by hand."""
    lock, constraints = ((ROOT / name).read_text() for name in ("requirements.lock", "constraints.txt"))
    pins = {name.lower().replace("_", "-"): pin for name, pin in re.findall(r"^([\w.-]+)==(\S+)$", constraints, re.M)}
    blocks = re.findall(r"^(\S+)==(\S+)( ;.*)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", lock, re.M)
    assert len(blocks) == len(re.findall("==", re.sub(r" ;.*", "", lock)))
    locked = {name: version for name, version, _, _ in blocks}
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {re.split(r"[\[<>=~! ]", each)[0].lower() for each in needed} <= locked.keys()
    assert [name for name, version in locked.items() if pins.get(name, version) != version] == []
    only_elsewhere = {name for name, _, marker, _ in blocks if marker}
    assert locked.keys() - pins.keys() <= only_elsewhere | {"setuptools"}, "every venv of Python 3.11 has setuptools"


def test_image_is_built_from_what_the_ignore_file_lets_through():
    """BuildKit reads NAME.dockerignore beside the Dockerfile; a forgotten `!` makes a COPY fail, far from here."""
    lines = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    copied = {path for copy in instructions("COPY") for path in copy.split()[:-1]}
    assert "*" in lines
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == copied


def test_image_does_not_run_as_root_and_has_what_kuberay_probes_with():
    """KubeRay asks with wget whether a node is well, and kills the pod that has none."""
    assert "useradd --create-home --uid 1000 ray" in instructions("RUN")[0]
    assert instructions("USER") == ["1000"]
    assert "wget" in instructions("RUN")[0]


def test_image_lets_its_user_write_what_is_compiled():
    """Without a folder of its own, each worker compiles again what the one before it has compiled."""
    environment = dict(word.split("=", 1) for line in instructions("ENV") for word in line.split())
    assert environment["HOME"] == "/home/ray"
    assert environment["NUMBA_CACHE_DIR"].startswith("/home/ray/")


def templates() -> list[dict[str, Any]]:
    """Of the head's pod and the workers'."""
    spec = RAYJOB["spec"]["rayClusterSpec"]
    return [group["template"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]


def containers() -> list[dict[str, Any]]:
    return [container for template in templates() for container in template["spec"]["containers"]]


def test_manifest_asks_for_a_token_and_opens_no_port_for_clients():
    """Who reaches Ray without a token runs anything as the user of the job, with its credentials."""
    assert RAYJOB["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    ports = [port["containerPort"] for container in containers() for port in container["ports"]]
    assert set(ports) == {6379, 8265, 8080}


def test_manifest_gives_no_pod_more_than_it_needs():
    """Every pod that KubeRay makes of it, the one that submits and the autoscaler's container included."""
    spec = RAYJOB["spec"]
    pods = [spec["submitterPodTemplate"]["spec"], *(template["spec"] for template in templates())]
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert [str(pod["securityContext"]["runAsUser"])] == instructions("USER")
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    every = [container for pod in pods for container in pod["containers"]]
    for container in [*every, spec["rayClusterSpec"]["autoscalerOptions"]]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_manifest_takes_credentials_from_a_service_account():
    """A key in an environment variable is read by every library of the process, and never expires."""
    assert {template["spec"]["serviceAccountName"] for template in templates()} == {"maskmill"}
    assert not any("env" in container or "envFrom" in container for container in containers())


def test_manifest_ends_and_does_not_repeat_what_was_refused():
    """KubeRay repeats every failure on a new cluster, a refused setting among them."""
    assert RAYJOB["spec"]["activeDeadlineSeconds"] > 0
    assert RAYJOB["spec"]["backoffLimit"] == 0


def test_network_policy_is_of_the_pods_of_the_manifest():
    """A selector that fits no pod protects nothing, and nobody is told."""
    labels = POLICY["spec"]["podSelector"]["matchLabels"]
    assert labels
    assert all(labels.items() <= template["metadata"]["labels"].items() for template in templates())
    within, control, metrics = POLICY["spec"]["ingress"]
    assert within == {"from": [{"podSelector": {"matchLabels": labels}}]}
    assert [port["port"] for port in control["ports"]] == [8265]
    assert control["from"][1]["podSelector"]["matchLabels"] == {
        "ray.io/originated-from-cr-name": RAYJOB["metadata"]["name"],
        "ray.io/originated-from-crd": "RayJob",
    }
    assert [port["port"] for port in metrics["ports"]] == [8080]


def test_manifest_names_versions_that_go_together():
    """Ray refuses to mix versions; the image carries the one of constraints.txt."""
    assert RAYJOB["spec"]["rayClusterSpec"]["rayVersion"] == ray_version()
    [submitter] = RAYJOB["spec"]["submitterPodTemplate"]["spec"]["containers"]
    assert len({container["image"] for container in [submitter, *containers()]}) == 1
    assert containers()[0]["image"].endswith(f":{pipeline.__version__}")


def test_manifest_runs_a_command_that_the_job_understands():
    """A renamed setting would be found by the first user who waited for a GPU."""
    words = shlex.split(RAYJOB["spec"]["entrypoint"])
    assert words[:3] == ["python", "-m", "jobs.generate"]
    check_overrides(words[3:], Settings)
    settings = dict(word.split("=", 1) for word in words[3:])
    assert settings["run"] == "cluster"
    assert settings["model.device"] == "cuda"  # `auto` sees no GPU where no node is yet


def test_manifest_goes_from_no_gpu_to_as_many_as_the_driver_asks_for():
    """Pods are added for workers that wait; more workers than pods would wait for ever."""
    [group] = RAYJOB["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert group["replicas"] == group["minReplicas"] == 0
    settings = dict(word.split("=", 1) for word in shlex.split(RAYJOB["spec"]["entrypoint"])[3:])
    [worker] = group["template"]["spec"]["containers"]
    gpus = int(worker["resources"]["limits"]["nvidia.com/gpu"])
    assert group["maxReplicas"] * gpus == int(settings["run.max_workers"])
    assert RAYJOB["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"] is True
    assert RAYJOB["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_manifest_and_page_let_a_stopped_job_drain():
    """The same seconds as `make submit` sets."""
    assert yaml.safe_load(RAYJOB["spec"]["runtimeEnvYAML"])["env_vars"] == {
        "RAY_JOB_STOP_WAIT_TIME_S": stop_wait(Settings(run=RunSettings()))
    }
    assert f'"RAY_JOB_STOP_WAIT_TIME_S": "{stop_wait(Settings(run=RunSettings()))}"' in PAGE


def expressions() -> str:
    queries = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return "\n".join([*queries, *(variable["definition"] for variable in DASHBOARD["templating"]["list"][1:])])


def test_dashboard_asks_for_exactly_the_metrics_that_there_are():
    """A panel of a series that is not there is empty, and nobody knows whether that is good news."""
    asked = set(re.findall(r"ray_(maskmill_\w+)", expressions()))
    assert asked == {metric.name for metric in CATALOGUE}
    labels = set(re.findall(r"(\w+)[!=]~?=?\"|by \((\w+)\)", expressions()))
    known = {"run", *(label for metric in CATALOGUE for label in metric.labels)}
    assert {label for pair in labels for label in pair if label} <= known


def test_names_follow_prometheus():
    """Counters end in _total, nothing else does, and a unit stands in the name where there is one."""
    assert len({metric.name for metric in CATALOGUE}) == len(CATALOGUE)
    for metric in CATALOGUE:
        assert re.fullmatch(r"maskmill(_[a-z]+)+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)


def test_panels_do_not_cover_each_other():
    """Grafana moves what overlaps, and every viewer sees another order."""
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not own & cells, panel["title"]
        cells |= own
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_page_lists_every_metric_as_the_code_has_it():
    """Written once by hand and then forgotten, a table lies."""
    rows = re.findall(r"^\| `(maskmill_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", PAGE, re.MULTILINE)
    assert rows == [
        (metric.name, metric.kind.lower(), ", ".join(f"`{label}`" for label in metric.labels), metric.help)
        for metric in CATALOGUE
    ]
    for reason in Failure:
        assert f"`{reason}`" in PAGE


def test_commands_of_the_page_are_understood_and_its_links_lead_somewhere():
    """What a reader copies first."""
    overrides = re.findall(r"ARGS='(.*?)'|-m jobs\.generate (run=.*?)$", PAGE.replace("\\\n", " "), re.MULTILINE)
    assert len(overrides) >= 2
    for group in overrides:
        check_overrides([word for text in group for word in shlex.split(text) if "…" not in word], Settings)
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", PAGE) if "://" not in link]
    assert links
    assert [link for link in links if not (Path(ROOT / "docs") / link).exists()] == []
