"""One control plane for the session, and a namespace for each test."""

from __future__ import annotations

import itertools
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from devstack.settings import REPOSITORY
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.control_plane import ControlPlane, Kubelet

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    programs = REPOSITORY / ".tools" / "kubernetes" / os.environ.get("KUBERNETES", "")
    if not (programs / "ready").exists():
        pytest.skip("`make test-kubernetes` builds what this needs")
    if shutil.which("etcd") is None:
        pytest.skip("etcd is not installed: apt-get install etcd-server")
    with ControlPlane(programs, tmp_path_factory.mktemp("kubernetes")) as running:
        yield running


@pytest.fixture(scope="session")
def kubelet(control_plane: ControlPlane) -> Iterator[Kubelet]:
    with Kubelet(control_plane.api).running() as running:
        yield running


@pytest.fixture(scope="session")
def empty_cluster(control_plane: ControlPlane, kubelet: Kubelet) -> Cluster:
    """A namespace of the same kind for dry runs, which leave nothing."""
    found = Cluster(control_plane, "empty")
    found.create()
    return found


@pytest.fixture
def cluster(control_plane: ControlPlane, kubelet: Kubelet, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A namespace that admits what Pod Security calls restricted, and nothing else; a parameter names another helm."""
    kubelet.job_phase = "Succeeded"
    found = Cluster(control_plane, f"test-{next(_numbers)}", getattr(request, "param", "helm"))
    found.create()
    yield found
    found.delete()
