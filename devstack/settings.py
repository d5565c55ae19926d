"""Settings of the stack: environment variables, read once, frozen."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from chassis.service import services
from devstack.errors import StackError
from envoy.edge import Address, require_origin

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

REPOSITORY: Final = Path(__file__).resolve().parent.parent


def _absolute(path: Path) -> Path:
    # Not resolve(): the screen shows the path as it was given.
    return Path(os.path.normpath(path.expanduser().absolute()))


def _postgres_url(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith(("postgresql://", "postgres://")):
        raise ValueError("must look like postgresql://user:password@host:5432/database")
    return url


def _list(value: object) -> object:
    return tuple(filter(None, value.split(","))) if isinstance(value, str) else value


def _origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    for origin in origins:
        require_origin(origin)
    return origins


def _receiver(endpoint: str) -> str:
    if endpoint and not endpoint.startswith(("http://", "https://")):  # the services would not know whether it has TLS
        raise ValueError("must look like http://collector:4317 or https://collector:4317")
    if endpoint:
        Address.parse(endpoint)
    return endpoint


def _redis_url(url: SecretStr) -> SecretStr:
    # The workers look at the rest of it.
    if not url.get_secret_value().startswith(("redis://", "rediss://", "redis+", "rediss+")):
        raise ValueError("must look like redis://user:password@host:6379/0 (docs/operations.md has the other forms)")
    return url


def _of_every_database(given: object) -> object:
    if not isinstance(given, dict):
        raise ValueError("name each database in a variable of its own, such as DATABASE_URL_USERS")  # noqa: TRY004  for pydantic
    databases = [service.database for service in services()]
    if unknown := given.keys() - set(databases):
        raise ValueError(f"there is no database {', '.join(sorted(unknown))}")
    return {name: given.get(name, os.environ.get(_variable_of(name)) or None) for name in databases}


def _variable_of(database: str) -> str:
    return f"DATABASE_URL_{database}".upper()


PostgresUrl = Annotated[SecretStr, AfterValidator(_postgres_url)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]


class Settings(BaseSettings):
    """How one stack differs from the next. Two run side by side if port and home differ.

    Attributes:
        edge_port: where callers reach the system, REST and gRPC alike, on 127.0.0.1.
        edge_tls_port: the same with TLS; 0 is any free one. The default is 8443 beside 8080, and any free one beside
            another edge_port, so that a second stack needs no second setting.
        home: the folder of the data, passwords and logs. A user who can write to it controls the stack.
        replicas: how many processes each service has.
        database_urls: for each database the URL to use instead of the stack's own PostgreSQL, if any: for `users` that
            of DATABASE_URL_USERS.
        redis_url: a Redis to use instead of the stack's own.
        keys_secret: what the signing keys in that PostgreSQL are encrypted with. The default is the stack's own.
        drain_s: how long a stopping replica still serves. The default is the services' own.
        log_level: of the services.
        rate_limit: how many calls one address may make in 15 minutes.
        public_write_limit: the same for logging in, refreshing and registering.
        cors_origins: whose pages may call from a browser, separated by commas. The default is where Vite, Next.js and
            the like serve theirs.
        otlp_endpoint: the receiver of traces, OTLP over gRPC, as http://host:port. Without it nothing is traced.
        trace_sampling: the percentage of calls that are traced; all by default, since a laptop gets few calls.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        # Not an alias a field: with names allowed beside aliases, HOME and DRAIN_S would be read as ours.
        env_prefix="SHOP_",
        env_ignore_empty=True,
        validate_by_name=True,
        hide_input_in_errors=True,
    )

    edge_port: Annotated[int, Field(ge=1, le=65535)] = 8080
    edge_tls_port: Annotated[int | None, Field(ge=0, le=65535)] = None
    home: Annotated[Path, AfterValidator(_absolute)] = REPOSITORY / ".devstack"
    # More than 8 of each would need more connections than the stack's PostgreSQL allows.
    replicas: Annotated[int, Field(ge=1, le=8)] = 2
    database_urls: Annotated[Mapping[str, PostgresUrl | None], NoDecode, BeforeValidator(_of_every_database)] = Field(
        default_factory=dict, validate_default=True
    )
    redis_url: Annotated[RedisUrl | None, Field(validation_alias="REDIS_URL")] = None
    keys_secret: Annotated[SecretStr | None, Field(validation_alias="KEYS_SECRET")] = None
    drain_s: Annotated[float, Field(ge=0, le=15)] = 3
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], Field(validation_alias="LOG_LEVEL")] = "INFO"
    rate_limit: Annotated[int, Field(ge=1, le=1_000_000_000)] = 100
    public_write_limit: Annotated[int, Field(ge=1, le=1_000_000_000)] = 20
    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_list), AfterValidator(_origins)] = (
        "http://localhost:3000",
        "http://localhost:5173",
    )

    otlp_endpoint: Annotated[str, AfterValidator(_receiver), Field(validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT")] = ""
    trace_sampling: Annotated[float, Field(ge=0, le=100)] = 100

    @property
    def traces_to(self) -> Address | None:
        """The address of the receiver of traces, if there is one."""
        return Address.parse(self.otlp_endpoint) if self.otlp_endpoint else None

    @property
    def tls_port(self) -> int:
        """The edge's TLS port; 0 for any free one."""
        if self.edge_tls_port is not None:
            return self.edge_tls_port
        return 8443 if self.edge_port == 8080 else 0

    @classmethod
    def from_environment(cls) -> Self:
        """Return the settings that the environment names.

        Raises:
            StackError: a variable makes no sense. Its value, which may be a secret, is not repeated.
        """
        try:
            return cls()
        except ValidationError as error:
            mistakes = error.errors(include_input=False, include_url=False)
            raise StackError("; ".join(_explained(mistake) for mistake in mistakes)) from None


def _explained(mistake: ErrorDetails) -> str:
    name, *rest = map(str, mistake["loc"])
    variable = name if name.isupper() else f"SHOP_{name}".upper()
    if name == "database_urls" and rest:
        variable = _variable_of(rest[0])
    return f"{variable}: {mistake['msg'].removeprefix('Value error, ')}"
