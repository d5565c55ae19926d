"""The additions of `make observe` to the stack: a page of traces and, if it is installed, Prometheus with the rules."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Self

from devstack.ports import LOOPBACK, ReservedPort
from devstack.process import Command, Process, no_report
from devstack.settings import REPOSITORY
from devstack.traces import TraceReceiver
from devstack.waterfall import WaterfallPage

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from devstack.stack import Stack

RULES: Final = REPOSITORY / "docs" / "observability" / "rules.yaml"
_SCRAPE: Final = "5s"  # shorter than the usual 15 s, so that a call that was just made soon shows


class TracePages:
    """A receiver of traces and its pages. Start it before the stack, which needs the receiver's endpoint.

    Attributes:
        receiver: the receiver.
        url: the URL of the list of traces.
    """

    url: str

    def __init__(self) -> None:
        self.receiver: Final = TraceReceiver()
        self._resources: Final = ExitStack()

    def __enter__(self) -> Self:
        """Listen and serve."""
        self._resources.enter_context(self.receiver)
        self.url = self._resources.enter_context(WaterfallPage(self.receiver)).url
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self._resources.close()


class Prometheus:
    """Prometheus, which scrapes every process of a running stack: `with Prometheus(stack) as prometheus`.

    Attributes:
        url: the URL of its page.
    """

    def __init__(self, stack: Stack, *, binary: str, report: Callable[[str], None] = no_report) -> None:
        self._port: Final = ReservedPort()
        self.url: Final = f"http://{LOOPBACK}:{self._port.number}"
        self._folder: Final = stack.home.path / "prometheus"
        self._config: Final = self._folder / "prometheus.yml"
        self._stack: Final = stack
        self._process: Final = Process(
            Command(
                name="Prometheus",
                argv=(
                    binary,
                    f"--config.file={self._config}",
                    f"--web.listen-address={LOOPBACK}:{self._port.number}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    "--storage.tsdb.retention.time=1d",
                    "--enable-feature=exemplar-storage",
                    "--log.level=warn",
                ),
                env={},
                cwd=REPOSITORY,
                log=stack.home.logs / "prometheus.log",
            ),
            report=report,
        )

    def __enter__(self) -> Self:
        """Write the configuration and start."""
        self._folder.mkdir(exist_ok=True)
        # JSON is YAML.
        self._config.write_text(json.dumps(prometheus_config(self._stack), indent=2))
        self._process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self._process.stop()
        self._port.release()


def find_prometheus() -> str | None:
    """Return the path of Prometheus; None if it is not installed (on Debian, the package `prometheus`)."""
    return shutil.which("prometheus")


def prometheus_config(stack: Stack) -> dict[str, object]:
    """Return the configuration of a Prometheus that scrapes every process of the stack, with our rules."""
    # The rules and dashboards expect one job per service, with its worker in it.
    targets = {
        name: [
            *(_target(each.metrics_url) for each in stack.replicas(name)),
            *(_target(each.metrics_url) for each in stack.workers.values() if each.service.name == name),
        ]
        for name in stack.service_names
    }
    targets["edge"] = [_target(stack.edge.metrics_url)]
    return {
        "global": {"scrape_interval": _SCRAPE, "evaluation_interval": _SCRAPE},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": name, "static_configs": [{"targets": addresses, "labels": {"namespace": "laptop"}}]}
            for name, addresses in targets.items()
        ],
    }


def _target(url: str) -> str:
    return url.removeprefix("http://").removesuffix("/metrics")
