"""The whole system on one machine, started and stopped in order."""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

from devstack.certificates import Certificates
from devstack.edge import EdgePorts, EdgeServer
from devstack.home import Home
from devstack.passwords import kept_secret, new_key, write_secret
from devstack.ports import reserve_edge_port
from devstack.postgres import PostgresServer
from devstack.process import no_report
from devstack.redis import RedisServer, find_redis
from devstack.services import SERVICES, ProcessEnvironment, Replica, Worker, owner_of, targets, task, worker_of
from devstack.stages import Stages

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from chassis.service import Service
    from devstack.settings import Settings

ADMIN_EMAIL: Final = "admin@shop.local"


class Stack:
    """PostgreSQL, Redis, the processes of every service and Envoy: `with Stack(settings) as stack: ...`.

    Once the stack runs, a process that dies is started again, unless its `restarts` is set to False.

    Attributes:
        settings: the settings that it was made from.
        home: its folder.
        postgres: the stack's server; None if the settings name another one for every database.
        redis: the stack's server; None if the settings name another one or this machine has none.
        workers: the worker of each service, by name; empty without a Redis.
        edge: Envoy.
        certificates: of all processes. They can be rotated at any time.
    """

    edge: EdgeServer

    def __init__(
        self,
        settings: Settings,
        *,
        extra_env: Mapping[str, Mapping[str, str]] | None = None,
        report: Callable[[str], None] = no_report,
    ) -> None:
        """Prepare a stack; nothing is started or written.

        Args:
            settings: ports, folder, limits and external servers.
            extra_env: additional environment variables, by the name of a service or of one of its processes
                (`user_svc-1`, `order_svc-worker`).
            report: called with a line for every step, and for every process that dies.
        """
        self.settings: Final = settings
        self.home: Final = Home(settings.home)
        self.certificates: Final = Certificates(self.home.tls)
        self.postgres: PostgresServer | None = None
        self.redis: RedisServer | None = None
        self.workers: Final[dict[str, Worker]] = {}
        self._extra_env: Final = extra_env or {}
        self._report: Final = report
        self._replicas: Final[dict[str, list[Replica]]] = {}
        self._stages: Final = Stages(report)
        self._resources: Final = ExitStack()

    @property
    def edge_url(self) -> str:
        """The URL of the system, for REST and gRPC."""
        return self.edge.url

    @property
    def edge_tls_url(self) -> str:
        """The same with TLS; clients must trust `certificates.authority`."""
        return self.edge.tls_url

    @property
    def admin_email(self) -> str:
        """The email of the first admin."""
        return ADMIN_EMAIL

    @property
    def admin_password(self) -> str:
        """The password of the first admin."""
        return self.home.admin.read_text().strip()

    def replicas(self, service: str) -> list[Replica]:
        """Return the replicas of the service."""
        return list(self._replicas[service])

    @property
    def service_names(self) -> tuple[str, ...]:
        """The services, in the order of starting."""
        return tuple(self._replicas)

    def psql_url(self, database: str) -> str:
        """Return the database's URL for psql, without the password."""
        if theirs := self.settings.database_urls[database]:
            parts = urlsplit(theirs.get_secret_value())
            return f"{parts.scheme}://{_without_password(parts.netloc)}{parts.path}"
        return self._own_postgres().psql_url(database, role=owner_of(database))

    def database_url(self, database: str) -> str:
        """Return the URL that the database's service uses, password included."""
        if theirs := self.settings.database_urls[database]:
            return theirs.get_secret_value()
        return self._own_postgres().url(database, role=owner_of(database))

    @property
    def redis_url(self) -> str | None:
        """The URL of the Redis that carries events; None if this machine has none: then events stay in the outbox."""
        if theirs := self.settings.redis_url:
            return theirs.get_secret_value()
        return self.redis.url if self.redis else None

    def start(self) -> None:
        """Start everything and return when the edge serves. If that fails, stop what was started.

        Raises:
            StackError: a program is missing, a port is in use, or a process failed. The message says what to do.
        """
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop everything, callers before callees; stopping again does nothing."""
        self._stages.stop()
        self._resources.close()

    def kill(self) -> None:
        """Kill every process at once. A `stop` that runs now, or later, then returns without waiting."""
        self._stages.kill()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()

    def _start(self) -> None:
        self._resources.enter_context(self.home.claimed())
        # Check for missing programs and ports in use before any process is started.
        self.edge = EdgeServer(self._edge_ports(), settings=self.settings, home=self.home, report=self._report)
        self._resources.callback(self.edge.release_ports)
        self.certificates.prepare()
        self._start_postgres()
        self._start_redis()
        self._prepare_replicas()
        self._migrate()
        self._make_admin()
        self._start_workers()
        self._start_services()
        self._start_edge()
        self._stages.keep_running()

    def _edge_ports(self) -> EdgePorts:
        plain = reserve_edge_port(self.settings.edge_port, variable="SHOP_EDGE_PORT")
        self._resources.callback(plain.release)
        tls = reserve_edge_port(self.settings.tls_port, variable="SHOP_EDGE_TLS_PORT")
        self._resources.callback(tls.release)
        return EdgePorts(plain, tls)

    def _start_postgres(self) -> None:
        ours = [service for service in SERVICES if not self.settings.database_urls[service.database]]
        if not ours:
            return
        with self._stages.step("PostgreSQL"):
            log = self.home.logs / "postgres.log"
            self.postgres = PostgresServer(self.home.postgres, log=log, report=self._report)
            self._resources.callback(self.postgres.close)
            self._stages.add("PostgreSQL", [self.postgres.process])
            self.postgres.start()
            for service in ours:
                self.postgres.create_private_database(service.database, role=service.name)

    def _start_redis(self) -> None:
        program = find_redis()
        if self.settings.redis_url or program is None:
            return
        with self._stages.step("Redis"):
            log = self.home.logs / "redis.log"
            self.redis = RedisServer(program, self.home.redis, log=log, report=self._report)
            self._resources.callback(self.redis.close)
            self._stages.add("Redis", [self.redis.process])
            self.redis.start()

    def _prepare_replicas(self) -> None:
        for service in SERVICES:
            numbers = range(1, self.settings.replicas + 1)
            replicas = [
                Replica(service, number, environment=self._environment_of(service, f"{service.name}-{number}"))
                for number in numbers
            ]
            for replica in replicas:
                self._resources.callback(replica.release_port)
            self._replicas[service.name] = replicas

    def _migrate(self) -> None:
        with self._stages.step("Migrations"):
            self._stages.run(
                "Migrations",
                [task(service, "migrate", environment=self._environment_of(service)) for service in SERVICES],
            )

    def _make_admin(self) -> None:
        """Create the first admin, unless the file with the password exists."""
        if self.home.admin.exists():
            return
        service = next(each for each in SERVICES if each.name == "user_svc")
        # The file gets its name after the admin was created, so that a crash leaves no file with a wrong password.
        unfinished = self.home.admin.with_suffix(".new")
        write_secret(unfinished, f"{secrets.token_urlsafe(18)}\n")
        with self._stages.step("Admin"):
            command = ("admin", "create", ADMIN_EMAIL)
            self._stages.run(
                "Admin", [task(service, *command, environment=self._environment_of(service), stdin=unfinished)]
            )
        unfinished.replace(self.home.admin)

    def _start_workers(self) -> None:
        # Their readiness is not awaited: until they run, events stay in the outbox and in the stream.
        if self.redis_url is None:
            return
        for service in [each for each in SERVICES if each.has_worker]:
            worker = Worker(service, environment=self._environment_of(service, worker_of(service)))
            self._resources.callback(worker.release_port)
            self.workers[worker.name] = worker
        self._stages.launch("Workers", list(self.workers.values()))

    def _start_services(self) -> None:
        with self._stages.step(f"{self.settings.replicas} x {', '.join(self._replicas)}"):
            for name, replicas in self._replicas.items():
                self._stages.launch(name, replicas)
            for replicas in self._replicas.values():
                for replica in replicas:
                    replica.wait_ready()

    def _start_edge(self) -> None:
        # After the services: Envoy checks their health at once and then every second, and the first check must succeed.
        with self._stages.step("Envoy"):
            self.edge.configure(self._replicas, certificates=self.certificates)
            self._stages.launch("Envoy", [self.edge.process])
            self.edge.process.wait_ready()

    def _own_postgres(self) -> PostgresServer:
        if self.postgres is None:
            raise RuntimeError("the stack has not been started")
        return self.postgres

    def _environment_of(self, service: Service, process: str = "") -> ProcessEnvironment:
        callees = [each for each in SERVICES if each.name in service.calls]
        env = {
            "SERVICE_NAME": service.name,
            "LOG_LEVEL": self.settings.log_level,
            "DATABASE_URL": self.database_url(service.database),
            **{name: self._keys_secret() for name in service.secrets},
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.settings.otlp_endpoint,
            **({"REDIS_URL": self.redis_url} if self.redis_url else {}),
            **{each.url_variable: targets(self._replicas[each.name]) for each in callees},
            **self._extra_env.get(service.name, {}),
            **self._extra_env.get(process, {}),
        }
        return ProcessEnvironment(
            logs=self.home.logs,
            env=env,
            certificates=self.certificates,
            drain_s=self.settings.drain_s,
            report=self._report,
        )

    def _keys_secret(self) -> str:
        if theirs := self.settings.keys_secret:
            return theirs.get_secret_value()
        return kept_secret(self.home.keys_secret, new_key)


def _without_password(netloc: str) -> str:
    user, at, host = netloc.rpartition("@")
    return user.partition(":")[0] + at + host
