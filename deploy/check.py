"""Holds rendered manifests, and the compose file, against what they must be. Called by deploy/check."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import compose_spec
import kubernetes_validate
import yaml
from cloudcoil.models.prometheus_operator import v1 as prometheus

# The oldest that the manifests are for (preStop.sleep), and the newest that there is a schema of.
VERSIONS = ["1.30", "1.37"]
REDIS = "KOREGATE__CACHE__REDIS__URL"

faults = []


def schema(manifest):
    """What the schemas of Kubernetes and of the Prometheus operator say."""
    if manifest["apiVersion"].startswith("monitoring.coreos.com/"):
        read = getattr(prometheus, manifest["kind"]).model_validate(manifest)
        # The models let unknown fields pass and drop them; what is dropped was misspelt.
        lost(manifest, read.model_dump(by_alias=True, exclude_unset=True, mode="json"), manifest["kind"])
        return
    for version in VERSIONS:
        kubernetes_validate.validate(manifest, version, strict=True)


def lost(written, kept, where):
    if isinstance(written, dict):
        for key, value in written.items():
            if key not in kept:
                raise ValueError(f"{where}.{key} is not a field")
            lost(value, kept[key], f"{where}.{key}")
    elif isinstance(written, list):
        for number, (mine, theirs) in enumerate(zip(written, kept, strict=True)):
            lost(mine, theirs, f"{where}[{number}]")


def restricted(pod):
    """The pod security standard "restricted", and what we want beside it."""
    whole = pod.get("securityContext", {})
    if pod.get("automountServiceAccountToken") is not False:
        yield "automountServiceAccountToken is not false"
    for key in ["hostNetwork", "hostPID", "hostIPC"]:
        if pod.get(key):
            yield f"{key} is on"
    for volume in pod.get("volumes", []):
        if not {"configMap", "secret", "emptyDir", "persistentVolumeClaim", "projected"} & set(volume):
            yield f"volume {volume['name']} is of a kind that is not allowed"
    for container in pod["containers"] + pod.get("initContainers", []):
        name, own = container["name"], container.get("securityContext", {})
        both = whole | own
        if both.get("runAsNonRoot") is not True or not both.get("runAsUser"):
            yield f"{name}: runs as root, or does not say as whom"
        if both.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{name}: no seccompProfile RuntimeDefault"
        if own.get("allowPrivilegeEscalation") is not False or own.get("readOnlyRootFilesystem") is not True:
            yield f"{name}: allowPrivilegeEscalation or readOnlyRootFilesystem"
        if own.get("capabilities") != {"drop": ["ALL"]} or own.get("privileged"):
            yield f"{name}: capabilities"
        resources = container.get("resources", {})
        if not {"cpu", "memory"} <= set(resources.get("requests", {})) or "memory" not in resources.get("limits", {}):
            yield f"{name}: requests or limits"
        mounts = [mount["name"] for mount in container.get("volumeMounts", [])]
        for unknown in set(mounts) - {volume["name"] for volume in pod.get("volumes", [])}:
            yield f"{name}: mounts {unknown}, which is not a volume"


def gateway(pod):
    """koregate's container and whether it is a sidecar; None if there is none."""
    for key in ["containers", "initContainers"]:
        for container in pod.get(key, []):
            if container["name"] == "koregate":
                return container, key == "initContainers"
    return None


def in_force(koregate, container, files):
    """Runs `koregate check` as the pod would start it, on throwaway secrets."""
    with tempfile.TemporaryDirectory() as scratch:
        def moved(text):
            return text.replace("/run/secrets/", f"{scratch}/")

        variables = {entry["name"]: moved(entry["value"]) for entry in container.get("env", [])}
        toml = moved(files["koregate.toml"])
        for path in re.findall(rf'file = "({re.escape(scratch)}/[^"]*)"', toml + "\n".join(variables.values())):
            Path(path).parent.mkdir(exist_ok=True)
            # It must look like what it stands for.
            Path(path).write_text("redis://:pw@redis:6379/0" if path.endswith("/url") else "5e" * 32)
        config = Path(scratch, "koregate.toml")
        config.write_text(toml)
        done = subprocess.run(
            [koregate, "check", "--config-only", "--config", config],
            # Whatever is set here has no part in it.
            env={k: v for k, v in os.environ.items() if not k.startswith(("KORE_", "KOREGATE"))} | variables,
            capture_output=True, text=True, check=False,
        )
    if done.returncode != 0:
        raise ValueError(f"koregate check: {done.stderr.strip()}")
    return done.stdout


def seconds(rendered, key):
    return int(re.search(rf'^{key} = "(\d+)s"', rendered, re.MULTILINE)[1])


def mebibytes(quantity):
    number, unit = re.fullmatch(r"(\d+)([MG])iB?", quantity).groups()
    return int(number) * {"M": 1, "G": 1024}[unit]


def running(koregate, manifests, workload):
    """What holds between a Deployment, its configuration and its neighbours."""
    pod = workload["spec"]["template"]["spec"]
    found = gateway(pod)
    if found is None:
        yield "there is no container koregate"
        return
    container, sidecar = found
    if sidecar and container.get("restartPolicy") != "Always":
        yield "koregate is an init container and not a sidecar"
    source = next(volume["configMap"]["name"] for volume in pod["volumes"] if volume["name"] == "koregate-config")
    files = next(m["data"] for m in manifests if m["kind"] == "ConfigMap" and m["metadata"]["name"] == source)
    rendered = in_force(koregate, container, files)

    before = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    if before + seconds(rendered, "drain_timeout") >= pod["terminationGracePeriodSeconds"]:
        yield "the kubelet does not wait for the drain"
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    admin = int(re.search(r'^admin_listen = "0\.0\.0\.0:(\d+)"', rendered, re.MULTILINE)[1])
    for probe, path in [("startupProbe", "/startupz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/livez")]:
        get = container[probe]["httpGet"]
        if get["path"] != path or ports.get(get["port"]) != admin:
            yield f"{probe} does not ask the admin listener for {path}"
    cache = mebibytes(re.search(r'^memory = "(.*)"', rendered, re.MULTILINE)[1])
    resources = container["resources"]
    if mebibytes(resources["requests"]["memory"]) < cache * 1.25 + 8:
        yield "the memory request does not hold a full cache"
    if mebibytes(resources["limits"]["memory"]) < cache * 1.25 + 8 + 512:
        yield "the memory limit does not hold a full cache and the largest walk"
    state = re.search(r'^state_file = "(.*)/', rendered, re.MULTILINE)[1]
    if state not in [mount["mountPath"] for mount in container["volumeMounts"]]:
        yield "quota.state_file is not in a volume"

    # Replicas share the quota over Redis; without it, each counts for itself.
    scaled = any(m["kind"] == "HorizontalPodAutoscaler" for m in manifests)
    redis = REDIS in [entry["name"] for entry in container.get("env", [])]
    if (scaled or workload["spec"].get("replicas") != 1) and not redis:
        yield "several replicas without Redis would spend the quota several times"
    if not scaled and workload["spec"].get("strategy", {}).get("type") != "Recreate" and not redis:
        yield "without Recreate there are two pods while one is replaced"

    # The admin listener has no authentication by default, so a policy must stand in front of it.
    labels = workload["spec"]["template"]["metadata"]["labels"]
    policies = [m["spec"] for m in manifests if m["kind"] == "NetworkPolicy"]
    closed = (p for p in policies if "Ingress" in p["policyTypes"])
    if not any(p["podSelector"]["matchLabels"].items() <= labels.items() for p in closed):
        yield "no NetworkPolicy closes the admin listener"


def manifests_of(koregate, path):
    manifests = list(yaml.safe_load_all(path.read_text()))
    for manifest in manifests:
        try:
            schema(manifest)
            if manifest["kind"] == "Deployment":
                found = [*restricted(manifest["spec"]["template"]["spec"]), *running(koregate, manifests, manifest)]
            else:
                found = []
        except Exception as error:  # Whatever is wrong, it is this manifest's.
            found = [f"{type(error).__name__}: {error}"]
        faults.extend(f"{path.stem}: {manifest['kind']} {manifest['metadata']['name']}: {fault}" for fault in found)
    print(f"deploy/kubernetes {path.stem}: {len(manifests)} manifests")


def compose(path):
    text = path.read_text()
    spec = compose_spec.PyCompose.from_yaml(text)
    for validate in [spec.validate, spec.validate_networks, spec.validate_secrets, spec.validate_volumes]:
        validate()
    for name, service in yaml.safe_load(text)["services"].items():
        hard = service.get("read_only"), service.get("cap_drop") == ["ALL"], service.get("security_opt")
        if not all(hard) or "user" not in service:
            faults.append(f"{path}: {name} is not hardened")
    print(f"{path}: good")


def observability(folder, runbook):
    """Each alert has a section of the runbook, a test that fires it, and one in which it stays silent."""
    rules = yaml.safe_load(Path(folder, "koregate.rules.yaml").read_text())
    tests = yaml.safe_load(Path(folder, "koregate.rules.test.yaml").read_text())["tests"]
    checks = [check for test in tests for check in test["alert_rule_test"]]
    sections = re.findall(r"^## (.+)$", Path(runbook).read_text(), re.MULTILINE)
    alerts = [rule["alert"] for group in rules["groups"] for rule in group["rules"]]
    for group in rules["groups"]:
        for rule in group["rules"]:
            name = rule["alert"]
            if rule["annotations"]["runbook"] != f"{runbook}#{name.lower()}" or name not in sections:
                faults.append(f"{folder}: {name} has no section in {runbook}")
            if {bool(check["exp_alerts"]) for check in checks if check["alertname"] == name} != {True, False}:
                faults.append(f"{folder}: {name} needs a test that fires it and one that does not")
    for name in set(sections) - set(alerts):
        faults.append(f"{runbook}: {name} is no alert")
    panels = json.loads(Path(folder, "koregate.dashboard.json").read_text())["panels"]
    for panel in panels:
        if not all(target["expr"] for target in panel["targets"]):
            faults.append(f"{folder}: the panel {panel['title']} has no query")
    print(f"{folder}: {len(alerts)} alerts, {len(panels)} panels")


def main():
    koregate, *paths = sys.argv[1:]
    for path in paths:
        manifests_of(koregate, Path(path))
    compose(Path("deploy/compose.yaml"))
    observability("deploy/observability", "docs/alerts.md")
    for fault in faults:
        print(fault, file=sys.stderr)
    sys.exit(1 if faults else 0)


main()
