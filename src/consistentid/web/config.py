"""What a server runs, where it listens, and what it accepts: YAML, environment and command line."""

import ipaddress
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, SettingsConfigDict

from consistentid.errors import InvalidSettings
from consistentid.generation.settings import explain

ENVIRONMENT = "CONSISTENTID_SERVE_"


class ServerConfig(BaseSettings):
    """Configuration of `consistentid serve`; every field can be set by an environment variable of its name in capitals
    behind `CONSISTENTID_SERVE_`.

    Attributes:
        host, port: where the server listens.
        api_keys: who may use it; in the environment separated by commas. Only on loopback may there be none.
        api_keys_file: one key a line, lines that start with # are remarks.
        model, adapter, dtype, offline: as in `PortraitGenerator.from_pretrained`.
        devices: one worker, with a model of its own, on each.
        store: folder of the jobs and their files.
        s3_bucket: `bucket` or `bucket/prefix` for the files instead; credentials come from the usual variables.
        s3_endpoint: of a server other than AWS.
        redis_url: of a Redis or Valkey for the jobs instead.
        retention_hours: finished jobs are deleted after this time.
        batch_size: images in one denoising run.
        batch_delay: seconds that a worker waits for requests to join the first one.
        lease: seconds after which the jobs of a worker that gives no sign of life are queued again.
        drain: seconds that running jobs get to finish when the server is told to stop.
        max_queue: jobs that may wait.
        rate: submissions and analyses of one client, as `limits` writes it (`60/minute`).
        max_body: bytes of a request.
        max_pixels: of an uploaded photo.
        max_text: characters of prompt, negative prompt, caption and words together.
        max_images, max_steps, max_side: of one request.
        preview_every: steps between two previews, 0 for none.
        preview_side: pixels.
    """

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT, extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, lt=65536)
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    api_keys_file: Path | None = None
    model: str = "embedded"
    adapter: str | None = None
    devices: Annotated[tuple[str, ...], NoDecode] = Field(default=("cpu",), min_length=1)
    dtype: str = "auto"
    offline: bool = True
    store: Path = Path("out/serve")
    s3_bucket: str | None = None
    s3_endpoint: str | None = None
    redis_url: SecretStr | None = None
    retention_hours: float = Field(default=24, gt=0)
    batch_size: int = Field(default=8, ge=1)
    batch_delay: float = Field(default=0.02, ge=0, le=10)
    lease: float = Field(default=30, gt=0)
    drain: float = Field(default=30, ge=0)
    max_queue: int = Field(default=64, ge=1)
    rate: str = "120/minute"
    max_body: int = Field(default=20_000_000, ge=1)
    max_pixels: int = Field(default=40_000_000, ge=1)
    max_text: int = Field(default=2000, ge=1)
    max_images: int = Field(default=8, ge=1)
    max_steps: int = Field(default=100, ge=1)
    max_side: int = Field(default=1536, ge=8)
    preview_every: int = Field(default=5, ge=0)
    preview_side: int = Field(default=128, ge=8)

    @field_validator("api_keys", "devices", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("rate")
    @classmethod
    def _is_a_rate(cls, value: str) -> str:
        from limits import parse_many

        parse_many(value)
        return value

    @model_validator(mode="after")
    def _protected(self) -> "ServerConfig":
        if not self.is_loopback and not (self.api_keys or self.api_keys_file):
            raise ValueError(
                f"host {self.host} can be reached from other machines, so API keys are needed: set api_keys_file, or "
                f"{ENVIRONMENT}API_KEYS"
            )
        return self

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def counters(self) -> str:
        """Where requests are counted, as `limits` writes it."""
        url = "memory://" if self.redis_url is None else self.redis_url.get_secret_value()
        return f"redis+{url}" if url.startswith("unix://") else url

    def keys(self) -> tuple[str, ...]:
        """Every API key.

        Raises:
            InvalidSettings: the file of keys cannot be read, or holds none.
        """
        keys = [key.get_secret_value() for key in self.api_keys]
        if self.api_keys_file is not None:
            try:
                lines = self.api_keys_file.read_text(encoding="utf-8").splitlines()
            except (OSError, ValueError) as error:
                raise InvalidSettings(f"the API keys in {self.api_keys_file} cannot be read ({error})") from None
            found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
            if not found:
                raise InvalidSettings(f"{self.api_keys_file} holds no API key; write one a line")
            keys += found
        return tuple(keys)

    @classmethod
    def load(cls, path: Path | None = None, **given: object) -> "ServerConfig":
        """A configuration: the file's values, over them the environment's, over them those given.

        Raises:
            InvalidSettings: the file cannot be read, or a value is wrong.
        """
        values = {} if path is None else _read(path)
        try:
            return cls(**{**values, **EnvSettingsSource(cls)(), **given})
        except ValidationError as error:
            raise InvalidSettings(explain(error)) from None


def _read(path: Path) -> dict[str, object]:
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InvalidSettings(f"{path} cannot be read as YAML ({error})") from None
    if not isinstance(values, dict):
        raise InvalidSettings(f"{path} must hold names and values; configs/server.yaml is an example")
    return values
