"""A namespace of a control plane, and the chart in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from devstack.settings import REPOSITORY
from tests.helm.chart import CHART

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import httpx

    from tests.kubernetes.control_plane import ControlPlane

Json = dict[str, Any]

# The default values of a test's release.
SMALL: Final = CHART / "ci" / "default-values.yaml"

# The pods that there are here are ready at once and stay so: there is nothing to watch.
_AT_ONCE: Final = ",".join(
    f"{workload}.rollout.minReadySeconds=0" for workload in ("serviceDefaults", "edge", "edge.globalRateLimit")
)

_PLURALS: Final = {"NetworkPolicy": "networkpolicies", "Ingress": "ingresses"}
_GROUPS: Final[Mapping[str, str]] = {
    "deployments": "/apis/apps/v1",
    "jobs": "/apis/batch/v1",
    "horizontalpodautoscalers": "/apis/autoscaling/v2",
    "networkpolicies": "/apis/networking.k8s.io/v1",
}


@dataclass(frozen=True, slots=True)
class Cluster:
    """One namespace.

    Attributes:
        program: the helm that is used there: helm or helm3.
    """

    control_plane: ControlPlane
    namespace: str
    program: str = "helm"

    def create(self) -> None:
        """Make the namespace."""
        self.control_plane.require_alive()
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        body = {"metadata": {"name": self.namespace, "labels": labels}}
        self.control_plane.api.post("/api/v1/namespaces", json=body).raise_for_status()

    def delete(self) -> None:
        """Remove it with everything in it, in its own time."""
        self.control_plane.api.delete(f"/api/v1/namespaces/{self.namespace}").raise_for_status()

    def helm(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run helm in the namespace, whatever its exit code."""
        found = shutil.which(self.program, path=f"{REPOSITORY / '.tools'}{os.pathsep}{os.environ['PATH']}")
        assert found, self.program
        return subprocess.run(
            [found, *arguments, "--namespace", self.namespace, "--kubeconfig", self.control_plane.kubeconfig],
            capture_output=True,
            text=True,
            timeout=300,  # above helm's own
            check=False,
        )

    def upgrade(self, *arguments: str, chart: Path = CHART, values: Path = SMALL) -> str:
        """Install or upgrade the chart; return what helm says.

        Raises:
            AssertionError: helm fails.
        """
        done = self.helm(
            "upgrade", "--install", "shop", str(chart), "--values", str(values), "--set", _AT_ONCE, *arguments
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def get(self, kind: str, name: str) -> Json:
        """Return one object."""
        answer = self.control_plane.api.get(f"{self._path(kind)}/{name}").raise_for_status()
        return dict(answer.json())

    def names(self, kind: str) -> set[str]:
        """Return the names of all objects of a kind."""
        items = self.control_plane.api.get(self._path(kind)).raise_for_status().json()["items"]
        return {each["metadata"]["name"] for each in items}

    def replicas(self, deployment: str) -> int:
        """Return how many pods a Deployment is to have."""
        return int(self.get("deployments", deployment)["spec"]["replicas"])

    def dry_run(self, manifest: Json) -> httpx.Response:
        """Have the API server look at a manifest without keeping it."""
        group = manifest["apiVersion"]
        root = f"/apis/{group}" if "/" in group else f"/api/{group}"
        plural = _PLURALS.get(manifest["kind"], f"{manifest['kind'].lower()}s")
        name = manifest["metadata"]["name"]
        return self.control_plane.api.patch(
            f"{root}/namespaces/{self.namespace}/{plural}/{name}",
            params={"dryRun": "All", "fieldManager": "test", "fieldValidation": "Strict"},
            content=json.dumps(manifest),  # is YAML too, and a text that looks like a number stays one
            headers={"Content-Type": "application/apply-patch+yaml"},
        )

    def make_account(self, name: str) -> None:
        """Make a ServiceAccount: no pod is admitted without its own."""
        self.control_plane.api.post(self._path("serviceaccounts"), json={"metadata": {"name": name}})

    def scale(self, deployment: str, number: int) -> None:
        """Do what `kubectl scale` does."""
        self.control_plane.api.patch(
            f"{self._path('deployments')}/{deployment}/scale",
            params={"fieldManager": "kubectl"},
            json={"spec": {"replicas": number}},
            headers={"Content-Type": "application/merge-patch+json"},
        ).raise_for_status()

    def raise_minimum(self, autoscaler: str, number: int) -> None:
        """Have an autoscaler add pods, as if there were load: metrics there are none."""
        self.control_plane.api.patch(
            f"{self._path('horizontalpodautoscalers')}/{autoscaler}",
            params={"fieldManager": "kubectl"},
            json={"spec": {"minReplicas": number}},
            headers={"Content-Type": "application/merge-patch+json"},
        ).raise_for_status()

    def _path(self, kind: str) -> str:
        return f"{_GROUPS.get(kind, '/api/v1')}/namespaces/{self.namespace}/{kind}"
