"""One control plane for the session, and a namespace for each test."""

from __future__ import annotations

import itertools
import shutil
from typing import TYPE_CHECKING

import pytest

from devstack.settings import REPOSITORY
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.control_plane import ControlPlane, Kubelet

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = "1.37.2"

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    programs = REPOSITORY / ".tools" / "kubernetes" / VERSION
    if not (programs / "ready").exists() or shutil.which("etcd") is None:
        pytest.skip("`make test-kubernetes` builds what this needs")
    with ControlPlane(programs, tmp_path_factory.mktemp("kubernetes")) as running:
        yield running


@pytest.fixture(scope="session")
def kubelet(control_plane: ControlPlane) -> Iterator[Kubelet]:
    with Kubelet(control_plane.api).running() as running:
        yield running


@pytest.fixture
def cluster(control_plane: ControlPlane, kubelet: Kubelet) -> Iterator[Cluster]:
    """A namespace that admits what Pod Security calls restricted, and nothing else."""
    kubelet.job_phase = "Succeeded"
    found = Cluster(control_plane, f"test-{next(_numbers)}")
    found.create()
    yield found
    found.delete()
