"""The Helm chart, judged without a cluster: valid, as careful as the compose files, in step with the code."""

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it says nothing of its types
import pytest
from ruamel.yaml import YAML

from backend.api import health, metrics
from backend.api.fleet import Model
from backend.doctor.variables import names_of
from backend.settings import Settings
from gpu_worker.settings import Settings as NodeSettings
from tests.services import missing

ROOT = Path(__file__).parent.parent
CHART = ROOT / "deploy/helm/fanfare"
KUBERNETES = ("1.27", "1.30", "1.37")
OF_OTHERS = {"ScaledObject", "TriggerAuthentication", "ServiceMonitor"}  # of KEDA and the Prometheus operator
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

# In a process of its own: Helm's library brings the run-time of Go, with threads and signal handlers.
HELM = """
import json, sys
import helm_python as helm
chart, values = sys.argv[1], json.load(sys.stdin)
report = helm.lint(chart, values, strict=True, kube_version="v1.30.0")
try:
    files = helm.Chart.load(chart).render(values, name="fanfare", namespace="images")
except helm.HelmError as exc:
    files, report["errors"] = {}, [*report["errors"], str(exc)]
json.dump([report, files], sys.stdout)
"""

Resource = dict[str, Any]


def yaml() -> YAML:
    return YAML(typ="safe", pure=True)


def helm(values: dict[str, Any]) -> tuple[list[str], list[Resource]]:
    """What lint complains of, and the manifests."""
    if importlib.util.find_spec("helm_python") is None:
        missing("no Helm: the package helm-python-sdk has no wheel for this platform")
    done = subprocess.run(
        [sys.executable, "-c", HELM, str(CHART)], input=json.dumps(values), capture_output=True, text=True,
        check=True, timeout=60,
    )  # fmt: skip
    report, files = json.loads(done.stdout)
    complaints = [one["error"] for one in report["messages"] if one["severity"] > 1] + report["errors"]
    texts = [text for name, text in files.items() if name.endswith(".yaml")]
    return complaints, [one for text in texts for one in yaml().load_all(text) if one]


FULL = yaml().load(CHART / "examples/full.yaml")
WITH_PROMETHEUS = FULL | {"keda": {"source": "prometheus", "prometheus": {"matchers": 'namespace="images"'}}}
BARE = {"nodes": {"sketch": None}, "api": {"anonymous": True}}
VALUES: dict[str, dict[str, Any]] = {
    "default": {}, "full": FULL, "prometheus": WITH_PROMETHEUS, "bare": BARE,
}  # fmt: skip


@pytest.fixture(scope="module")
def rendered() -> dict[str, list[Resource]]:
    """The manifests for each of VALUES."""
    found = {}
    for name, values in VALUES.items():
        complaints, found[name] = helm(values)
        assert complaints == []
    return found


def kind(resources: list[Resource], wanted: str) -> dict[str, Resource]:
    """Those of one kind, by name."""
    return {one["metadata"]["name"]: one for one in resources if one["kind"] == wanted}


def pods(resources: list[Resource]) -> Iterator[tuple[str, dict[str, Any]]]:
    for one in resources:
        if one["kind"] in ("Deployment", "Job"):
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]


def environment(pod: dict[str, Any]) -> dict[str, Any]:
    """Each variable with its value, or where that comes from."""
    variables = pod["containers"][0]["env"]
    assert len({one["name"] for one in variables}) == len(variables)
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in variables}


@pytest.fixture(params=VALUES)
def resources(request: pytest.FixtureRequest, rendered: dict[str, list[Resource]]) -> list[Resource]:
    """The manifests, for each of VALUES in turn."""
    return rendered[request.param]


@pytest.fixture
def full(rendered: dict[str, list[Resource]]) -> list[Resource]:
    """The manifests for examples/full.yaml."""
    return rendered["full"]


# -- valid -------------------------------------------------------------------------------------------------


def test_manifests_are_what_kubernetes_takes(resources: list[Resource]) -> None:
    for one in resources:
        for version in KUBERNETES:
            if one["kind"] not in OF_OTHERS:
                kubernetes_validate.validate(one, version, strict=True)


def test_a_manifest_with_a_slip_is_found(full: list[Resource]) -> None:
    api = kind(full, "Deployment")["fanfare-api"]
    api = api | {"spec": api["spec"] | {"replica": 3}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(api, KUBERNETES[0], strict=True)


def test_names_are_unique_and_selectors_find_their_own_pods_only(resources: list[Resource]) -> None:
    names = [(one["kind"], one["metadata"]["name"]) for one in resources]
    assert len(set(names)) == len(names)
    deployments = kind(resources, "Deployment").values()
    selectors = [one["spec"]["selector"]["matchLabels"] for one in deployments]
    for selector, deployment in zip(selectors, deployments, strict=True):
        assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert len({str(selector) for selector in selectors}) == len(selectors)


@pytest.mark.parametrize(
    "wrong",
    [
        {"storageUrl": "file:///data"},  # which pods would not share
        {"settings": {"OPENAI_API_KEY": "sk-1"}},
        {"settings": {"FANFARE_DATABASE_URL": "postgresql://u:p@h/n"}},
        {"beat": {"replicas": 2}},
        {"nodes": {"sdxl": {"gpu": 1}}},
        {"nodes": {"sdxl": {"models": ["../etc"]}}},
        {"nodes": {"sdxl": {"scaling": {"enabled": True}}}},
        {"api": {"anonymous": True}, "keda": {"source": "guess"}},
    ],
    ids=str,
)
def test_values_that_can_not_work_are_refused(wrong: dict[str, Any]) -> None:
    assert helm(wrong)[0]


# -- careful -----------------------------------------------------------------------------------------------


def test_every_pod_gives_up_what_it_does_not_need(resources: list[Resource]) -> None:
    for name, pod in pods(resources):
        (container,) = pod["containers"]
        assert pod["automountServiceAccountToken"] is False, name
        # else a Service of ours sets FANFARE_API_PORT in every pod, to a URL
        assert pod["enableServiceLinks"] is False
        assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]) == (True, 10001)
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert {one["mountPath"] for one in container["volumeMounts"]} >= {"/tmp"}
        assert container["resources"]["requests"]


def test_secrets_are_named_and_never_told(resources: list[Resource]) -> None:
    assert kind(resources, "Secret") == {}
    for _, pod in pods(resources):
        for name, value in environment(pod).items():
            secret = re.search(r"SECRET|KEY|TOKEN|DATABASE_URL|BROKER_URL|RESULT_URL", name)
            assert not secret or "secretKeyRef" in value, name


def test_a_node_holds_no_secret_of_the_backend_and_beat_no_more_than_the_broker(full: list[Resource]) -> None:
    theirs = {name: pod for name, pod in pods(full) if "-node-" in name}
    assert set(theirs) == {"fanfare-node-sdxl", "fanfare-node-large"}
    for pod in theirs.values():
        named = [v["secretKeyRef"]["name"] for v in environment(pod).values() if "secretKeyRef" in v]
        assert set(named) == {"fanfare-node"}
        assert "envFrom" not in pod["containers"][0]
    beat = dict(pods(full))["fanfare-beat"]
    asked = {name for name, value in environment(beat).items() if "secretKeyRef" in value}
    assert asked == {"FANFARE_BROKER_URL", "FANFARE_RESULT_URL"}
    assert "envFrom" not in beat["containers"][0]


def test_images_are_of_this_version(resources: list[Resource]) -> None:
    for name, pod in pods(resources):
        assert pod["containers"][0]["image"].endswith(f":{VERSION}"), name
    chart = yaml().load(CHART / "Chart.yaml")
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)


def test_nobody_connects_to_anything_but_the_api(full: list[Resource]) -> None:
    policies = kind(full, "NetworkPolicy")
    everything, api = policies["fanfare"]["spec"], policies["fanfare-api"]["spec"]
    assert (everything["policyTypes"], everything["ingress"]) == (["Ingress"], [])
    for name, pod in kind(full, "Deployment").items():
        labels = pod["spec"]["template"]["metadata"]["labels"]
        assert everything["podSelector"]["matchLabels"].items() <= labels.items()
        ours = api["podSelector"]["matchLabels"].items() <= labels.items()
        assert ours is (name == "fanfare-api")


# -- in step with the code ---------------------------------------------------------------------------------


def test_every_variable_is_a_setting(resources: list[Resource]) -> None:
    backend = {name for field in Settings.model_fields for name in names_of(field)}
    nodes = {f"FANFARE_{field.upper()}" for field in NodeSettings.model_fields} | {
        "OPENAI_API_KEY",
        "HF_TOKEN",
    }
    for name, pod in pods(resources):
        assert set(environment(pod)) <= (nodes if "-node-" in name else backend), name


def test_what_is_set_can_be_read(full: list[Resource], monkeypatch: pytest.MonkeyPatch) -> None:
    # Given what an API's pod would see, with the secrets filled in
    told = {k: v for k, v in environment(dict(pods(full))["fanfare-api"]).items() if isinstance(v, str)}
    for name, value in (told | {"FANFARE_BROKER_URL": "redis://h/0"}).items():
        monkeypatch.setenv(name, value)
    settings = Settings(_env_file=None)
    # Then it is what the example says
    assert settings.models == ["flux-schnell", "qwen-image", "sdxl"]
    assert settings.max_upload_bytes == 128 * 1024 * 1024  # a number that Helm would write as 1.34217728e+08
    assert settings.llm_timeout_s == 45.5
    assert settings.node_url == "http://fanfare-api.images.svc:8000"
    assert settings.public_url == "https://images.example.com"
    assert (settings.api_host, settings.api_anonymous) == ("0.0.0.0", False)


def test_each_part_is_probed_and_given_time_to_end(full: list[Resource]) -> None:
    deployments = kind(full, "Deployment")
    api = deployments["fanfare-api"]["spec"]["template"]["spec"]["containers"][0]
    routes = {route.path for route in health.router.routes if hasattr(route, "path")}
    asked = {api[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert asked == routes
    assert (
        api["livenessProbe"]["httpGet"]["path"] == "/healthz"
    )  # a database that is away is no reason to end
    for name in ("fanfare-worker", "fanfare-beat"):
        container = deployments[name]["spec"]["template"]["spec"]["containers"][0]
        alive = environment(deployments[name]["spec"]["template"]["spec"])["FANFARE_ALIVE_FILE"]
        assert alive in container["livenessProbe"]["exec"]["command"][-1]
    for name, pod in pods(full):
        if "-node-" in name:
            container = pod["containers"][0]
            assert container["livenessProbe"]["exec"]["command"] == ["fanfare-node", "health"]
            drain_s = int(environment(pod)["FANFARE_NODE_DRAIN_S"])
            assert pod["terminationGracePeriodSeconds"] == drain_s + 60
    assert environment(dict(pods(full))["fanfare-node-sdxl"])["FANFARE_NODE_DRAIN_S"] == "60"


def test_the_check_of_a_file_that_is_touched_finds_it_and_one_that_is_old(
    full: list[Resource], tmp_path: Path
) -> None:
    worker = dict(pods(full))["fanfare-worker"]["containers"][0]
    shell, option, script = worker["readinessProbe"]["exec"]["command"]
    file = tmp_path / "alive"
    command = [shell, option, script.replace("/tmp/alive", str(file))]
    assert subprocess.run(command, check=False, capture_output=True).returncode != 0
    file.touch()
    assert subprocess.run(command, check=False).returncode == 0
    subprocess.run(["touch", "-d", "-31 seconds", str(file)], check=True)
    assert subprocess.run(command, check=False).returncode != 0


def test_there_is_one_beat_and_its_database_is_ready_before_anything_starts(
    resources: list[Resource],
) -> None:
    assert kind(resources, "Deployment")["fanfare-beat"]["spec"]["replicas"] == 1
    (job,) = kind(resources, "Job").values()
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["migrate"]


def test_what_there_are_several_of_goes_one_by_one(full: list[Resource]) -> None:
    budgets = kind(full, "PodDisruptionBudget")
    assert set(budgets) == set(kind(full, "Deployment")) - {"fanfare-beat"}
    assert all(one["spec"]["maxUnavailable"] == 1 for one in budgets.values())


# -- nodes -------------------------------------------------------------------------------------------------


def test_a_set_gets_its_gpus_its_image_its_models_and_its_cache(full: list[Resource]) -> None:
    sdxl, large = (dict(pods(full))[f"fanfare-node-{name}"] for name in ("sdxl", "large"))
    assert sdxl["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": 1}
    assert large["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": 2}
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in large["tolerations"]
    assert len(large["tolerations"]) == 2
    assert sdxl["containers"][0]["image"].startswith("registry.example.com/fanfare-node-gpu:")
    assert environment(large)["FANFARE_NODE_MODELS"] == "flux-schnell,qwen-image"
    assert environment(large)["FANFARE_NODE_STALL_S"] == "1800"
    claims = [pod["volumes"][-1]["persistentVolumeClaim"]["claimName"] for pod in (sdxl, large)]
    assert claims == ["fanfare-node-sdxl-models", "models-large"]
    (claim,) = kind(full, "PersistentVolumeClaim").values()
    assert claim["metadata"]["name"] == claims[0]
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_a_set_may_take_back_what_is_so_for_all() -> None:
    values = {
        "nodeDefaults": {"download": True, "replicas": 3, "scaling": {"enabled": True}},
        "nodes": {"sketch": {"download": False, "replicas": 0, "scaling": {"enabled": False}}},
    }
    complaints, resources = helm(values)
    assert complaints == []
    assert kind(resources, "ScaledObject") == {}
    node = kind(resources, "Deployment")["fanfare-node-sketch"]
    assert node["spec"]["replicas"] == 0
    assert environment(node["spec"]["template"]["spec"])["FANFARE_NODE_DOWNLOAD"] == "false"


def test_the_default_is_a_node_without_a_gpu(rendered: dict[str, list[Resource]]) -> None:
    (name,) = [name for name, _ in pods(rendered["default"]) if "-node-" in name]
    pod = dict(pods(rendered["default"]))[name]
    assert pod["containers"][0]["image"].startswith("fanfare-node:")
    assert "nvidia.com/gpu" not in str(pod)
    assert kind(rendered["default"], "ScaledObject") == {}
    assert [name for name, _ in pods(rendered["bare"]) if "-node-" in name] == []


# -- scaling -----------------------------------------------------------------------------------------------


def value_at(location: str, answer: dict[str, Any]) -> Any:
    """What KEDA finds in an answer of `/v1/models`, for the one form of its paths that the chart writes."""
    match = re.fullmatch(r'results\.#\(name=="([^"]+)"\)\.(\w+)', location)
    assert match, location
    return next(model[match[2]] for model in answer["results"] if model["name"] == match[1])


def test_nodes_are_scaled_by_what_waits_and_what_is_in_hand(full: list[Resource]) -> None:
    # Given what the API answers
    asked = {"sdxl": (3, 1), "flux-schnell": (20, 4), "qwen-image": (0, 2)}
    models = [Model(name=name, waiting=w, running=r) for name, (w, r) in asked.items()]
    answer = {"results": [model.model_dump() for model in models]}
    # When each ScaledObject's formula is worked out by it
    sums, scaled = {}, kind(full, "ScaledObject")
    for name, one in scaled.items():
        values = {
            t["name"]: value_at(t["metadata"]["valueLocation"], answer) for t in one["spec"]["triggers"]
        }
        terms = one["spec"]["advanced"]["scalingModifiers"]["formula"].split(" + ")
        assert sorted(terms) == sorted(values)
        sums[name] = sum(values[term] for term in terms)
    # Then it is the images that are asked of the set
    assert sums == {"fanfare-node-sdxl": 4, "fanfare-node-large": 26}
    assert set(scaled) <= set(kind(full, "Deployment"))
    for name, one in scaled.items():
        assert one["spec"]["scaleTargetRef"] == {"name": name}
        assert "replicas" not in kind(full, "Deployment")[name]["spec"]
    assert [scaled[f"fanfare-node-{n}"]["spec"]["minReplicaCount"] for n in ("sdxl", "large")] == [0, 1]
    assert scaled["fanfare-node-sdxl"]["spec"]["cooldownPeriod"] == 600


def test_keda_asks_the_service_with_a_key_from_a_secret(full: list[Resource]) -> None:
    (authentication,) = kind(full, "TriggerAuthentication").values()
    (reference,) = authentication["spec"]["secretTargetRef"]
    assert reference == {"parameter": "token", "name": "fanfare-keda", "key": "FANFARE_API_KEY"}
    (service,) = kind(full, "Service").values()
    for one in kind(full, "ScaledObject").values():
        for trigger in one["spec"]["triggers"]:
            url = f"http://{service['metadata']['name']}.images.svc:{service['spec']['ports'][0]['port']}"
            assert trigger["metadata"]["url"] == f"{url}/v1/models"
            assert trigger["metadata"]["authMode"] == "bearer"
            assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]
            assert all(isinstance(value, str) for value in trigger["metadata"].values())


def test_or_by_what_prometheus_has_scraped(rendered: dict[str, list[Resource]]) -> None:
    resources = rendered["prometheus"]
    assert kind(resources, "TriggerAuthentication") == {}
    (trigger,) = kind(resources, "ScaledObject")["fanfare-node-large"]["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    source = (ROOT / "backend/api/system_metrics.py").read_text()
    names = re.findall(r"fanfare_\w+", query)
    assert names == ["fanfare_images_waiting", "fanfare_images_running"]
    assert all(f'"{name}"' in source for name in names)
    assert query.count('{model=~"flux-schnell|qwen-image",namespace="images"}') == 2
    assert query.count("max by (model)") == 2  # each API process says the same
    assert trigger["metadata"]["ignoreNullValues"] == "false"


def test_prometheus_scrapes_the_api_with_a_token_from_a_secret(full: list[Resource]) -> None:
    (monitor,) = kind(full, "ServiceMonitor").values()
    (endpoint,) = monitor["spec"]["endpoints"]
    (service,) = kind(full, "Service").values()
    assert endpoint["path"] in {getattr(route, "path", None) for route in metrics.router.routes}
    assert endpoint["port"] == service["spec"]["ports"][0]["name"]
    assert endpoint["authorization"]["credentials"] == {"name": "fanfare", "key": "FANFARE_METRICS_TOKEN"}
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
