"""The API server accepts the manifests of every legal value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from tests.helm.chart import CHART, values_file
from tests.helm.test_values import LEGAL, with_base

if TYPE_CHECKING:
    from tests.kubernetes.cluster import Cluster


@pytest.mark.parametrize("case", LEGAL)
def test_the_api_server_takes_it(empty_cluster: Cluster, case: str) -> None:
    with values_file(with_base(LEGAL[case][0])) as values:
        done = empty_cluster.helm("template", "shop", str(CHART), "--values", str(values))
    assert done.returncode == 0, done.stderr

    for manifest in filter(None, yaml.safe_load_all(done.stdout)):
        if manifest["kind"] == "Pod":
            empty_cluster.make_account(manifest["spec"]["serviceAccountName"])
        answer = empty_cluster.dry_run(manifest)
        assert answer.is_success, f"{manifest['kind']} {manifest['metadata']['name']}: {answer.text}"
        assert "Warning" not in answer.headers, answer.headers["Warning"]
