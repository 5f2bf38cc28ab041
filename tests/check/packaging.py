#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that what is shipped beside the program fits it and one another: the Kubernetes manifests, docker-compose.yml, the
systemd unit. The binary itself judges the settings in them.

usage: packaging.py BUILD    (a directory with dnsproxy and packaging/dnsproxy.service)"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = sorted((ROOT / "packaging" / "kubernetes").glob("*.yaml"))
DRAIN_S = 2  # the default of timeouts.drain
DEFAULTS = {"DNSPROXY_ADMIN": "127.0.0.1:9153", "DNSPROXY_LISTEN": "0.0.0.0:53,[::]:53"}  # of the image

errors = []


def expect(true, where, what):
    if not true:
        errors.append(f"{where}: {what}")


def judged(binary, environment):
    """What `dnsproxy check` says against these settings; "" when nothing."""
    done = subprocess.run([binary, "check"], env=environment, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr


def port_of(address):
    return int(address.rpartition(":")[2])


def check_probe(where, container, name, path, admin_port):
    probe = container.get(name, {}).get("httpGet", {})
    ports = {port.get("name"): port["containerPort"] for port in container.get("ports", [])}
    expect(probe.get("path") == path and ports.get(probe.get("port")) == admin_port, where,
           f"{name} does not ask {path} at the port of DNSPROXY_ADMIN")
    expect(f'"{path}"' in (ROOT / "src/control/admin.c").read_text(encoding="utf-8"), where, f"nothing answers {path}")


def check_container(where, container, binary):
    """Gives its settings."""
    settings = DEFAULTS | {variable["name"]: variable["value"] for variable in container.get("env", [])}
    expect(not (error := judged(binary, settings)), where, error)
    admin = settings["DNSPROXY_ADMIN"]
    expect(not admin.startswith("127."), where, "the kubelet cannot reach the admin address")
    check_probe(where, container, "readinessProbe", "/ready", port_of(admin))
    check_probe(where, container, "livenessProbe", "/health", port_of(admin))
    resources = container.get("resources", {})
    expect({"cpu", "memory"} <= set(resources.get("requests", {})) and "memory" in resources.get("limits", {}), where,
           "resources are not requested, or memory has no limit")
    return settings


def check_pod(where, metadata, spec, binary):
    expect(spec.get("enableServiceLinks") is False, where, "enableServiceLinks is not false")
    expect("app.kubernetes.io/name" in metadata.get("labels", {}), where, "the pod has no label app.kubernetes.io/name")
    ours = [one for one in spec["containers"] + spec.get("initContainers", []) if one["image"] == "dnsproxy"]
    expect(len(ours) == 1, where, "not one container is dnsproxy")
    for container in ours:
        settings = check_container(where, container, binary)
        scraped = metadata.get("annotations", {})
        expect((scraped.get("prometheus.io/scrape"), scraped.get("prometheus.io/path"), scraped.get("prometheus.io/port"))
               == ("true", "/metrics", str(port_of(settings["DNSPROXY_ADMIN"]))), where, "Prometheus does not find the metrics")
        if container in spec.get("initContainers", []):
            expect(container.get("restartPolicy") == "Always", where, "the sidecar is no native one")
            check_probe(where, container, "startupProbe", "/ready", port_of(settings["DNSPROXY_ADMIN"]))
            expect(port_of(settings["DNSPROXY_LISTEN"]) == 53 and spec["dnsConfig"]["nameservers"] ==
                   [settings["DNSPROXY_LISTEN"].rpartition(":")[0]], where, "the program does not ask the sidecar")
        else:
            check_lame_duck(where, spec, settings)


def check_lame_duck(where, spec, settings):
    lame_duck = re.fullmatch(r"(\d+)s", settings.get("DNSPROXY_TIMEOUTS_LAME_DUCK", ""))
    expect(lame_duck and 0 < int(lame_duck[1]) + DRAIN_S < spec.get("terminationGracePeriodSeconds", 30), where,
           "the lame duck and the drain do not fit into terminationGracePeriodSeconds")


def check_daemon_set(where, manifest, binary):
    spec = manifest["spec"]
    pod = spec["template"]
    labels = pod["metadata"]["labels"]
    expect(spec["selector"]["matchLabels"].items() <= labels.items(), where, "the selector does not choose its pods")
    strategy = spec.get("updateStrategy", {}).get("rollingUpdate", {})
    expect(strategy == {"maxSurge": 1, "maxUnavailable": 0}, where, "an update leaves a node without dnsproxy")
    expect(not pod["spec"].get("hostNetwork") and not any(
        "hostPort" in port for one in pod["spec"]["containers"] for port in one.get("ports", [])), where,
        "with maxSurge two pods would want one port of the node")
    check_pod(where, pod["metadata"], pod["spec"], binary)


def check_service(where, service, pods):
    chosen = [pod for pod in pods if service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()]
    ports = {(port["containerPort"], port["protocol"]) for pod in chosen for one in pod["spec"]["containers"]
             for port in one["ports"]}
    expect({(port["port"], port["protocol"]) for port in service["spec"]["ports"]} == {(53, "UDP"), (53, "TCP")} <= ports,
           where, "the service has no pod that serves its ports")


def check_kubernetes(binary):
    for path in KUBERNETES:
        manifests = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
        pods = [one["spec"]["template"] for one in manifests if one["kind"] == "DaemonSet"]
        for manifest in manifests:
            where = f"{path.name}, {manifest['kind']}"
            expect("app.kubernetes.io/name" in manifest["metadata"].get("labels", {}), where,
                   "there is no label app.kubernetes.io/name")
            if manifest["kind"] == "DaemonSet":
                check_daemon_set(where, manifest, binary)
            elif manifest["kind"] == "Service":
                check_service(where, manifest, pods)
            else:
                check_pod(where, manifest["metadata"], manifest["spec"], binary)


def check_compose():
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]["dnsproxy"]
    run = re.search(r"^docker run (-p .*) dnsproxy$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    expect(run and set(run[1].replace("-p ", "").split()) == set(service["ports"]), "docker-compose.yml",
           "other ports than those of README.md")
    expect(service["read_only"] and service["cap_drop"] == ["ALL"], "docker-compose.yml", "it may more than it needs")


def check_unit(build):
    path = build / "packaging" / "dnsproxy.service"
    settings = re.findall(r"^(\w+)=(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    values = dict(settings)
    expect(set(values["RestrictAddressFamilies"].split()) == {"AF_INET", "AF_INET6", "AF_NETLINK", "AF_UNIX"}, path.name,
           "other families of addresses than those that are used")
    expect(values.get("StartLimitIntervalSec") == "0", path.name, "it gives up when an address is late")
    expect(re.match(r"man:dnsproxy\(8\) file:/.*\.md$", values.get("Documentation", "")), path.name, "no Documentation=")
    if shutil.which("systemd-analyze"):
        check_with_systemd(path)


def check_with_systemd(path):
    """What systemd itself says, but for the program and the manual page, which are not installed."""
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True, check=False)
    for line in done.stderr.splitlines():
        expect("dnsproxy.service" not in line or "is not executable" in line, path.name, line)


def main():
    build = Path(sys.argv[1]).resolve()
    check_kubernetes(build / "dnsproxy")
    check_compose()
    check_unit(build)
    print("\n".join(errors))
    return 1 if errors else 0


sys.exit(main())
