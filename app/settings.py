"""Every knob, its unit and its default; the only reader of the environment.

A setting is an environment variable `DARKROOM_<NAME>`, or a line in the `darkroom.env` file that
`darkroom up` writes into its state folder. Durations are ISO 8601 (`PT24H`) or a number of seconds.
"""

import os  # the one place that may
from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.errors import SetupError
from app.setting_types import Entries, Folder, PositiveSeconds, Seconds

ENV_FILE = "darkroom.env"
"""Name of the file in a state folder that tells other commands where that stack's servers are."""
DEFAULT_STATE = Path(".darkroom")
_SLOWEST_HEARTBEAT = timedelta(seconds=10)


class Settings(BaseSettings):
    """All settings of all processes; frozen, so that what was checked at start stays true."""

    model_config = SettingsConfigDict(env_prefix="DARKROOM_", frozen=True, extra="ignore")

    # Servers
    database_url: SecretStr = Field(
        description="PostgreSQL 15 or newer: postgresql://user:password@host:port/name"
    )
    broker_url: SecretStr = Field(description="RabbitMQ (amqp://…) or Valkey/Redis (redis://…) for Celery")
    broker_queue_type: Literal["classic", "quorum"] = Field(
        "quorum", description="Type of the queues declared on RabbitMQ; Valkey has only one"
    )
    s3_endpoint: str = Field(description="The S3 store, with scheme: http://host:port")
    s3_access_key: SecretStr = Field(description="Access key of the S3 store")
    s3_secret_key: SecretStr = Field(description="Secret key of the S3 store")
    s3_bucket: str = Field("darkroom", description="Bucket for inputs and outputs; created when missing")
    s3_region: str = Field("us-east-1", description="Region named in S3 signatures")
    s3_public_endpoint: str | None = Field(
        None,
        description="Address of the S3 store as customers see it; set it to redirect downloads to "
        "short-lived presigned links instead of streaming them through web",
    )
    secret_key: SecretStr = Field(
        description="At least 32 random characters; keys the digests of stored API keys", min_length=32
    )

    encryption_keys: SecretStr | None = Field(
        None,
        description="Fernet keys for stored secrets, newest first, comma-separated; default: one derived "
        "from DARKROOM_SECRET_KEY",
    )

    state: Path = Field(DEFAULT_STATE, description="Folder for what a process keeps between two starts")

    # Web
    public_url: str | None = Field(
        None, description="Base URL customers use, without a trailing slash; default: the request's host"
    )
    bootstrap_api_key: SecretStr | None = Field(
        None,
        description="API key of the first account, at least 16 characters; lets a service keep its key",
        min_length=16,
    )
    web_threads: int = Field(64, ge=2, le=512, description="Requests that one web process serves at a time")
    web_processes: int = Field(1, ge=1, le=64, description="Web processes under one `darkroom web`")
    max_json_bytes: int = Field(256 * 1024, ge=1024, description="Largest JSON body, bytes")
    max_upload_bytes: int = Field(25 * 1024 * 1024, ge=1024, description="Largest multipart body, bytes")
    max_image_pixels: int = Field(
        16_777_216, ge=4096, le=16_777_216, description="Largest input image, pixels"
    )
    rate_limit_per_minute: int = Field(
        6000, ge=1, description="Requests per API key and minute, counted in each web process"
    )
    max_unfinished_jobs: int = Field(
        10_000, ge=1, description="Queued and running jobs per account before submits answer 429"
    )

    max_waits: int | None = Field(
        None,
        ge=1,
        description="Requests of a web process that may wait for a job or hold an event stream at a time, "
        "half of them by one account; default: three quarters of its threads",
    )
    sync_wait: Seconds = Field(
        timedelta(seconds=25),
        description="How long a ModelsLab request waits for its images before it answers `processing`",
    )
    longest_wait: PositiveSeconds = Field(
        timedelta(seconds=55),
        description="Longest that any request waits for a job: OpenAI's, IMG Processing's, `?wait=`",
    )

    # Dialects
    modelslab_model: str | None = Field(
        None,
        description="Model of ModelsLab's realtime API, which names none; default: the first one",
    )
    modelslab_always_200: bool = Field(
        False,
        description="Answer every ModelsLab error with HTTP 200 and `status: error`, as some clients expect",
    )
    modelslab_inline_base64: bool = Field(
        False,
        description="With `base64: true`, put the text itself into ModelsLab's `output`, not links to it",
    )
    adult_styles: bool = Field(
        False,
        description="Whether ModelsLab's adult `enhance_style` names are allowed",
    )
    openai_model: str | None = Field(
        None, description="Model of OpenAI requests that name none; default: the first one"
    )
    library_retention: PositiveSeconds | None = Field(
        None,
        description="How long unpublished IMG Processing images of live keys stay; default: until deleted",
    )
    test_retention: PositiveSeconds = Field(
        timedelta(days=90), description="How long images made with an IMG Processing test key stay"
    )
    safety_url: str | None = Field(
        None,
        pattern="^https?://[^/]",
        description="HTTP service that looks at images for jobs that ask for a safety check; default: none, "
        "and then no image is called checked",
    )
    safety_folder: Path | None = Field(
        None,
        description="Folder of the model that does so instead: a diffusers safety checker, or an image "
        "classifier of transformers with DARKROOM_SAFETY_LABELS",
    )
    safety_labels: Entries = Field(
        (), description="Labels of that classifier for which an image is flagged, comma-separated: `nsfw`"
    )
    safety_threshold: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Probability of these labels, all together, from which on an image is flagged",
    )
    safety_required: bool = Field(
        False,
        description="Where nobody looks at images: whether a job that asks for a check fails with "
        "`safety_unavailable`, or gets its images unchecked and told so",
    )
    max_retention: PositiveSeconds = Field(
        timedelta(days=365), description="Longest `retain_seconds` a request may name"
    )

    # Customers' addresses
    fetch_allow: Entries = Field(
        (),
        description="What customers' image URLs may reach beside public hosts on ports 80 and 443: networks, "
        "addresses, hosts and suffixes, each with an optional port, comma-separated: `10.0.0.0/8`, "
        "`127.0.0.1`, `hooks.internal:8080`, `.svc.cluster.local`; `*:8443` opens a port of public hosts",
    )
    webhook_allow: Entries = Field(
        (), description="The same for customers' webhooks, of which many are internal: `.svc.cluster.local`"
    )
    bucket_allow: Entries = Field(
        (), description="The same for the S3 endpoints of customers' own buckets: `minio.internal:9000`"
    )
    fetch_max_bytes: int = Field(
        20 * 1024 * 1024, ge=1024, description="Largest file fetched from a customer's URL, bytes"
    )
    fetch_timeout: PositiveSeconds = Field(
        timedelta(seconds=20), description="Longest that fetching a customer's URL takes, redirects included"
    )
    webhook_timeout: PositiveSeconds = Field(
        timedelta(seconds=15), description="How long a webhook's receiver may take to answer"
    )

    # Upstream providers
    upstream_keys: SecretStr | None = Field(
        None,
        description="Keys of the catalogue's upstreams, comma-separated: `openai=sk-…, modelslab=…`; they "
        "are kept nowhere else",
    )
    upstream_allow: Entries = Field(
        (),
        description="What upstreams' image URLs may reach beside public hosts on ports 80 and 443, and "
        "beside the upstream's own host; form as in DARKROOM_FETCH_ALLOW",
    )
    unservable_after: Seconds = Field(
        timedelta(hours=1),
        description="How long a job may wait while no live worker or provider can draw its model, before it "
        "fails with `unservable`; 0 refuses it at the door",
    )

    # Jobs
    models: Entries = Field(
        (),
        description="Names of the built-in shelf to offer, before `sketch` and in this order, "
        "comma-separated: `sdxl, openai`; `darkroom models list` shows them all",
    )
    models_file: Path | None = Field(
        None, description="Catalogue to use instead of the built-in one and its shelf"
    )
    models_folder: Folder = Field(
        Path("~/.cache/darkroom/models"),
        validate_default=True,
        description="Where the weights of local models lie, and `darkroom models pull` puts them",
    )
    hub_endpoint: str | None = Field(
        None,
        pattern="^https?://[^/]",
        description="Mirror that `darkroom models pull` asks instead of the Hugging Face hub",
    )
    hub_token: SecretStr | None = Field(
        None,
        description="Token for repositories whose licence must be accepted first; default: HF_TOKEN, or the "
        "login of the hub's own tool",
    )
    lease: PositiveSeconds = Field(
        timedelta(seconds=30), description="How long a silent worker keeps a job before it is rescued"
    )
    job_deadline: PositiveSeconds = Field(
        timedelta(minutes=10), description="Longest an attempt may run before the job fails with `timeout`"
    )
    max_attempts: int = Field(5, ge=1, le=100, description="Charged attempts before a job fails for good")
    drain_grace: PositiveSeconds = Field(
        timedelta(seconds=20), description="After SIGTERM: how long running jobs may take to finish"
    )
    retention: PositiveSeconds = Field(
        timedelta(hours=24), description="How long an output nobody persisted is served"
    )
    purge_grace: Seconds = Field(
        timedelta(minutes=15), description="How long after its expiry an output's object is deleted"
    )
    purge_every: PositiveSeconds = Field(timedelta(minutes=5), description="How often beat starts a purge")

    # Relay
    relay_poll: PositiveSeconds = Field(
        timedelta(seconds=1), description="How long relay sleeps when nobody rings"
    )
    progress_every: PositiveSeconds = Field(
        timedelta(seconds=1), description="How often a worker writes down the progress of its jobs"
    )
    relay_batch: int = Field(100, ge=1, le=1000, description="Jobs released per queue in one statement")
    redispatch_after: PositiveSeconds = Field(
        timedelta(seconds=10), description="Age at which a wake-up missing from the broker is sent again"
    )

    # Local GPUs
    gpu_device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$",
        description="Where the GPU engine draws: `cuda:0`, `cpu`; auto: the first GPU, else the CPU",
    )
    gpu_reserve_bytes: int = Field(
        3 * 1024**3, ge=0, description="GPU memory left for the images being drawn, bytes"
    )
    gpu_model_bytes: int | None = Field(
        None,
        ge=1,
        description="Memory for models, bytes; default: what the GPU has but for the reserve, half of the "
        "machine's memory on a CPU",
    )
    gpu_warm: Entries = Field(
        (), description="Profiles that a GPU worker brings into memory before it takes jobs"
    )

    # Logs
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe record")
    log_format: Literal["console", "json"] = Field("console", description="json for machines")

    # Tests
    failpoints: Entries = Field(
        (), description="For fault tests: points of the code at which the process kills itself"
    )

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        if self.lease >= self.job_deadline:
            raise ValueError(
                f"DARKROOM_LEASE ({self.lease}) must be shorter than "
                f"DARKROOM_JOB_DEADLINE ({self.job_deadline})"
            )
        if self.models and self.models_file:
            raise ValueError(
                "set only one of DARKROOM_MODELS, which adds to the built-in catalogue, and "
                "DARKROOM_MODELS_FILE, which replaces it"
            )
        if self.safety_url and self.safety_folder:
            raise ValueError("set only one of DARKROOM_SAFETY_URL and DARKROOM_SAFETY_FOLDER")
        # By value: an environment that spells out every setting, defaults and all, contradicts nothing.
        threshold = type(self).model_fields["safety_threshold"].default
        if not self.safety_folder and (self.safety_labels or self.safety_threshold != threshold):
            raise ValueError(
                "DARKROOM_SAFETY_LABELS and DARKROOM_SAFETY_THRESHOLD are about the model in "
                "DARKROOM_SAFETY_FOLDER, which is not set"
            )
        if "" in {*self.keys_of_upstreams, *self.keys_of_upstreams.values()}:
            raise ValueError("DARKROOM_UPSTREAM_KEYS must be name=key, with commas in between")
        return self

    @property
    def keys_of_upstreams(self) -> dict[str, str]:
        """The key of each upstream by its name."""
        given = self.upstream_keys.get_secret_value() if self.upstream_keys else ""
        pairs = (entry.partition("=") for entry in given.split(",") if entry.strip())
        return {name.strip(): key.strip() for name, _, key in pairs}

    @property
    def checks_safety(self) -> bool:
        """Whether anybody is configured who looks at images for jobs that ask for it."""
        return self.safety_url is not None or self.safety_folder is not None

    @property
    def heartbeat(self) -> timedelta:
        """Interval of lease renewals: a third of the lease, so that two may be missed, and at most 10 s.

        The relay takes a worker that was silent for 30 s for dead, whatever the lease.
        """
        return min(self.lease / 3, _SLOWEST_HEARTBEAT)


def load(state: Path | None = None, **overrides: object) -> Settings:
    """Give the settings from the environment, else from `darkroom.env` in the state folder.

    Args:
        state: the state folder; None takes DARKROOM_STATE, else `.darkroom` here.

    Raises:
        SetupError: a setting is missing or contradicts another; the message names each and the remedy.
    """
    folder = state or Path(os.environ.get("DARKROOM_STATE", DEFAULT_STATE))
    try:
        return Settings(_env_file=folder / ENV_FILE, state=folder, **overrides)  # type: ignore[arg-type]  # pydantic checks them
    except ValidationError as error:
        raise SetupError(_explain(error, folder)) from None


class _Serverless(Settings):
    """Settings of a command that asks no server, so that none needs to be named."""

    database_url: SecretStr = SecretStr("")
    broker_url: SecretStr = SecretStr("")
    s3_endpoint: str = ""
    s3_access_key: SecretStr = SecretStr("")
    s3_secret_key: SecretStr = SecretStr("")
    secret_key: SecretStr = SecretStr("")


def load_without_servers(state: Path) -> Settings:
    """Give the settings as `load` does, but where servers are not named yet.

    Raises:
        SetupError: a setting is wrong or contradicts another.
    """
    try:
        return _Serverless(_env_file=state / ENV_FILE, state=state)
    except ValidationError as error:
        raise SetupError(_explain(error, state)) from None


def use_state(state: Path) -> None:
    """Have every `load()` of this process and of its children take its settings from this state folder."""
    os.environ["DARKROOM_STATE"] = str(state)


def environment_of_child(**changes: str) -> dict[str, str]:
    """Give this process's environment with `changes` laid over it, for a child process."""
    return {**os.environ, **changes}


def is_given(name: str) -> bool:
    """Whether the environment itself (not a file) sets `DARKROOM_<NAME>`."""
    return bool(os.environ.get(f"DARKROOM_{name.upper()}"))


def _explain(error: ValidationError, state: Path) -> str:
    missing = [str(e["loc"][0]).upper() for e in error.errors() if e["type"] == "missing"]
    wrong = [
        (e["loc"], e["msg"].removeprefix("Value error, ")) for e in error.errors() if e["type"] != "missing"
    ]
    lines = [
        f"DARKROOM_{'_'.join(str(part) for part in place).upper()}: {says}" if place else says
        for place, says in wrong
    ]
    if missing:
        lines.append(
            "not set: "
            + ", ".join(f"DARKROOM_{name}" for name in missing)
            + f". Start a local stack with `darkroom up --state {state}`, or set them to your own servers."
        )
    return "\n".join(lines)
