"""Settings of the processes, from environment variables that begin with MONKEY_CODER_."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from monkey_coder.errors import SettingsError
from monkey_coder.models import CollapseName

PREFIX: Final = "MONKEY_CODER_"
FORMS: Final = {
    "secret": "16 to 64 bytes in hexadecimal digits, as `openssl rand -hex 32` prints them",
    "cache_key": "NAME:HEX, a name of up to 32 letters, digits, dots, dashes or underscores, and 16 to 64 bytes in "
    "hexadecimal digits, as `openssl rand -hex 32` prints them",
    "redis_url": "an address such as redis://host:6379/0, rediss://host:6379/0 or unix:///path/to/socket",
    "scrape_token": "at least 16 printable ASCII characters without spaces",
}
"""What settings look like that have a form of their own, in words."""
OF_CLIENTS: Final = frozenset({"api_key"})
"""Variables with the same prefix that `client.py` reads, and a server ignores."""


class Settings(BaseModel):
    """What an operator may set. Each field is read from MONKEY_CODER_<NAME IN CAPITALS>."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: Annotated[str, Field(description="Address to listen on.")] = "127.0.0.1"
    catalog: Annotated[Path | None, Field(description="A catalog file that replaces or extends the default one.")] = (
        None
    )
    state_dir: Annotated[Path, Field(description="Where policies and the secret of this deployment live.")] = Path(
        "var"
    )
    secret: Annotated[
        str | None,
        Field(
            pattern=r"^(?:[0-9a-fA-F]{2}){16,64}$",
            repr=False,
            description="HEX, the secret of the deployment: signs decision ids; the same on all hosts.",
        ),
    ] = None
    redis_url: Annotated[
        str | None,
        Field(
            pattern=r"^(rediss?|unix)://", repr=False, description="Redis or Valkey that keeps all state but secrets."
        ),
    ] = None
    quantum: Annotated[bool, Field(description="Whether POST /v1/route asks the quantum engine before Gary8D.")] = True
    collapse: Annotated[CollapseName, Field(description="Collapse of requests that name none.")] = "weighted"
    balancing: Annotated[
        Literal["weighted", "least_outstanding", "latency"],
        Field(description="How calls of one model are spread over its deployments."),
    ] = "weighted"
    probe_every_s: Annotated[
        float, Field(ge=0.0, le=3600.0, description="Seconds between checks of providers' health addresses; 0: none.")
    ] = 0.0
    explore: Annotated[bool, Field(description="Whether the engine may try other candidates to learn.")] = True
    target_usd_per_task: Annotated[
        float | None, Field(gt=0.0, description="USD a task that spend is kept at; none: as callers weigh cost.")
    ] = None
    learn: Annotated[bool, Field(description="Whether `serve` starts a learner beside the web processes.")] = True
    max_body_bytes: Annotated[int, Field(ge=1024, description="Largest request body in bytes.")] = 1024 * 1024
    max_batch: Annotated[int, Field(ge=1, le=4096, description="Requests decided together.")] = 128
    max_queue: Annotated[int, Field(ge=1, description="Requests that may wait before further ones get 503.")] = 4096
    max_wait_s: Annotated[float, Field(gt=0.0, description="Seconds after which a waiting request gets 503.")] = 5.0
    cache: Annotated[bool, Field(description="Whether decisions are cached.")] = True
    cache_mb: Annotated[int, Field(ge=1, le=1_000_000, description="Megabytes of decisions kept in each process.")] = 64
    cache_ttl_s: Annotated[
        float, Field(gt=0.0, le=86_400.0, description="Longest life of a cached decision in seconds.")
    ] = 7200.0
    cache_wait_ms: Annotated[
        float, Field(gt=0.0, le=1000.0, description="Longest that a batch waits for a cache in Redis.")
    ] = 5.0
    session_ttl_s: Annotated[
        float,
        Field(ge=0.0, le=2_592_000.0, description="Seconds that all processes know a session for; 0: each its own."),
    ] = 86_400.0
    session_wait_ms: Annotated[
        float, Field(gt=0.0, le=1000.0, description="Longest that a batch waits for what sessions used last.")
    ] = 5.0
    cache_key: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Za-z0-9._-]{1,32}:(?:[0-9a-fA-F]{2}){16,64}$",
            repr=False,
            description="NAME:HEX, the secret of the cache; hosts that share a cache have the same.",
        ),
    ] = None
    cache_check_rate: Annotated[
        float, Field(ge=0.0, le=1.0, description="Share of hits that are decided again, to check them.")
    ] = 0.001
    scrape_token: Annotated[
        str | None,
        Field(
            min_length=16, pattern=r"^[\x21-\x7e]+$", repr=False, description="Token that metrics and health ask for."
        ),
    ] = None

    @field_validator("redis_url")
    @classmethod
    def _address_of_redis(cls, url: str | None) -> str | None:
        if url is not None:
            parts = urlsplit(url)
            place = parts.path.removeprefix("/")
            if parts.port == 0 or (not place if parts.scheme == "unix" else place and not place.isdecimal()):
                raise ValueError(f"must be {FORMS['redis_url']}")
        return url

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the settings.

        Raises:
            SettingsError: A variable that does not exist or has a bad value; the message names it and the mend.
        """
        given = {k.removeprefix(PREFIX).lower(): v for k, v in environment.items() if k.startswith(PREFIX)}
        for name in OF_CLIENTS & given.keys():
            del given[name]
        for name in given:
            if name not in cls.model_fields:
                near = get_close_matches(name, cls.model_fields, n=1)
                hint = f"; did you mean {PREFIX}{near[0].upper()}?" if near else ""
                raise SettingsError(f"there is no setting {PREFIX}{name.upper()}{hint}")
        try:
            settings = cls.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0])
            message = f"must be {FORMS[name]}" if name in FORMS else first["msg"]
            raise SettingsError(f"{PREFIX}{name.upper()}: {message}") from error
        return settings

    @property
    def on_loopback(self) -> bool:
        """Whether this machine alone can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def require_safe_address(self, *, keyed: bool = False) -> None:
        """Refuse to listen where others could connect while there is no key to ask them for.

        Args:
            keyed: Whether there are API keys.

        Raises:
            SettingsError: There are none, and the address is not a loopback address.
        """
        if not keyed and not self.on_loopback:
            raise SettingsError(
                f"refusing to listen on {self.host}: no API keys are configured, so anybody who reaches that address "
                "could use the router; make one with `monkey-coder keys create --role admin --name NAME`, or listen on "
                "127.0.0.1"
            )

    def to_environment(self) -> dict[str, str]:
        """The variables that `from_environment` reads back to the same settings."""
        return {
            f"{PREFIX}{name.upper()}": str(value)
            for name, value in self.model_dump(mode="json", exclude_none=True).items()
        }
