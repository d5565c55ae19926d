"""A control plane of Kubernetes on loopback: etcd, kube-apiserver and kube-controller-manager, without nodes.

The parts that judge the chart are real: validation, admission by Pod Security, server-side apply, Deployments,
Jobs and autoscalers. Containers are not: `Kubelet` says of every pod that it runs, or has ended.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Self

import httpx
import yaml

from tests.support.ports import free_port
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Json = dict[str, Any]

_TOKEN: Final = "admin-token"


class ControlPlane:
    """A control plane for a session of tests.

    Args:
        programs: the folder with kube-apiserver, kube-controller-manager and `crds`.
        folder: where it keeps what it has.

    Attributes:
        kubeconfig: for helm.
        api: a client of the API server.
    """

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        self._port = free_port()
        self._processes: list[subprocess.Popen[bytes]] = []
        self.kubeconfig = folder / "kubeconfig"
        self.api = httpx.Client(
            base_url=f"https://127.0.0.1:{self._port}",
            headers={"Authorization": f"Bearer {_TOKEN}"},
            verify=False,
            timeout=30,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop everything."""
        for process in reversed(self._processes):
            process.kill()  # there is nothing to save, and kube-apiserver takes a minute to end in order
            process.wait()
        self.api.close()

    def _start(self) -> None:
        etcd_port, peer_port = free_port(), free_port()
        key = self._folder / "service-accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        (self._folder / "tokens.csv").write_text(f"{_TOKEN},admin,1,system:masters\n")
        self.kubeconfig.write_text(yaml.safe_dump(self._configuration()))
        self._run(
            shutil.which("etcd") or "etcd",
            f"--data-dir={self._folder / 'etcd'}",
            f"--listen-client-urls=http://127.0.0.1:{etcd_port}",
            f"--advertise-client-urls=http://127.0.0.1:{etcd_port}",
            f"--listen-peer-urls=http://127.0.0.1:{peer_port}",
            "--unsafe-no-fsync",
        )
        self._run(
            str(self._programs / "kube-apiserver"),
            f"--etcd-servers=http://127.0.0.1:{etcd_port}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._port}",
            f"--cert-dir={self._folder / 'certificates'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            f"--token-auth-file={self._folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/16,fd00:96::/108",
            "--endpoint-reconciler-type=none",
        )
        until(self._is_ready, timeout_s=120)
        self._run(
            str(self._programs / "kube-controller-manager"),
            f"--kubeconfig={self.kubeconfig}",
            "--bind-address=127.0.0.1",
            f"--secure-port={free_port()}",
            f"--cert-dir={self._folder / 'certificates-of-controllers'}",
            "--leader-elect=false",
            f"--service-account-private-key-file={key}",
            # Both take pods for lost whose node there is not.
            "--controllers=*,-node-lifecycle-controller,-pod-garbage-collector-controller",
            "--horizontal-pod-autoscaler-sync-period=2s",
        )
        important = {"metadata": {"name": "important"}, "value": 1000}  # as ci/production-values.yaml calls it
        self.api.post("/apis/scheduling.k8s.io/v1/priorityclasses", json=important).raise_for_status()
        sandbox = {"metadata": {"name": "gvisor"}, "handler": "runsc"}
        self.api.post("/apis/node.k8s.io/v1/runtimeclasses", json=sandbox).raise_for_status()
        for path in sorted((self._programs / "crds").glob("*.yaml")):
            # As they are: Kubernetes reads YAML in which PyYAML finds YAML 1.1's `=`.
            for document in path.read_text().split("\n---\n"):
                if "\nkind: CustomResourceDefinition\n" in document:
                    self.api.post(
                        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
                        content=document,
                        headers={"Content-Type": "application/yaml"},
                    ).raise_for_status()

    def _run(self, *argv: str) -> None:
        with (self._folder / f"{argv[0].rpartition('/')[2]}.log").open("wb") as log:
            self._processes.append(subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT, cwd=self._folder))

    def require_alive(self) -> None:
        """Return if every process runs."""
        ended = [process.args for process in self._processes if process.poll() is not None]
        assert not ended, f"see the logs in {self._folder}: {ended}"

    def _is_ready(self) -> bool:
        self.require_alive()
        with contextlib.suppress(httpx.TransportError):
            return self.api.get("/readyz").is_success
        return False

    def _configuration(self) -> Json:
        cluster = {"server": f"https://127.0.0.1:{self._port}", "insecure-skip-tls-verify": True}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "loopback", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": _TOKEN}}],
            "contexts": [{"name": "loopback", "context": {"cluster": "loopback", "user": "admin"}}],
            "current-context": "loopback",
        }


@dataclass(slots=True)
class Kubelet:
    """Says of every pod that is bound to nothing real that it runs; of one that ends by itself, that it has ended.

    Gives load balancers an address, as a cloud does: Helm 3 waits for it.

    Attributes:
        job_phase: what pods of Jobs come to: `Succeeded`, `Failed`, or `Running` for ever.
    """

    api: httpx.Client
    job_phase: str = "Succeeded"
    _stopping: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def running(self) -> Iterator[Self]:
        """Do it in a thread of its own."""
        thread = threading.Thread(target=self._look_forever, name="kubelet")
        thread.start()
        try:
            yield self
        finally:
            self._stopping.set()
            thread.join()

    def _look_forever(self) -> None:
        while not self._stopping.wait(0.2):
            for pod in self.api.get("/api/v1/pods").raise_for_status().json()["items"]:
                self._tend(pod)
            for service in self.api.get("/api/v1/services").raise_for_status().json()["items"]:
                if service["spec"]["type"] == "LoadBalancer" and not service["status"]["loadBalancer"]:
                    self._give_address(service["metadata"])

    def _tend(self, pod: Json) -> None:
        metadata, spec = pod["metadata"], pod["spec"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        if metadata.get("deletionTimestamp"):
            self.api.request("DELETE", path, json={"gracePeriodSeconds": 0})
        elif not spec.get("nodeName"):
            target = {"apiVersion": "v1", "kind": "Node", "name": "none"}
            self.api.post(f"{path}/binding", json={"metadata": {"name": metadata["name"]}, "target": target})
        else:
            phase = self.job_phase if spec["restartPolicy"] == "Never" else "Running"
            if pod["status"].get("phase") not in {phase, "Succeeded", "Failed"}:
                self.api.patch(
                    f"{path}/status",
                    json={"status": _status(spec["containers"], phase)},
                    headers={"Content-Type": "application/strategic-merge-patch+json"},
                )

    def _give_address(self, service: Json) -> None:
        self.api.patch(
            f"/api/v1/namespaces/{service['namespace']}/services/{service['name']}/status",
            json={"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}},
            headers={"Content-Type": "application/merge-patch+json"},
        )


def _status(containers: list[Json], phase: str) -> Json:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    is_running = phase == "Running"
    ended = {"exitCode": int(phase == "Failed"), "startedAt": now, "finishedAt": now}
    return {
        "phase": phase,
        "startTime": now,
        "containerStatuses": [
            {
                "name": each["name"],
                "image": each["image"],
                "imageID": "",
                "ready": is_running,
                "restartCount": 0,
                "state": {"running": {"startedAt": now}} if is_running else {"terminated": ended},
            }
            for each in containers
        ],
        "conditions": [
            {"type": kind, "status": str(is_running), "lastTransitionTime": now}
            for kind in ("ContainersReady", "Ready")
        ],
    }
