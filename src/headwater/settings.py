"""Every setting of the operator; the only place that reads the environment."""

import os
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated

from platformdirs import user_data_path
from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


def default_data_dir() -> Path:
    """Root's data lives outside root's home: the embedded PostgreSQL runs under an account of its own."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/headwater")
    return user_data_path("headwater", appauthor=False)


class Settings(BaseSettings):
    """Read from variables named `HEADWATER_…`; an empty variable counts as not set."""

    model_config = SettingsConfigDict(
        env_prefix="HEADWATER_", env_ignore_empty=True, frozen=True, hide_input_in_errors=True
    )

    data_dir: Path = Field(default_factory=default_data_dir, description="Everything Headwater keeps itself.")
    database_url: SecretStr | None = Field(
        default=None, description="An external PostgreSQL (15 or newer) instead of the embedded one."
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    public_url: str | None = Field(
        default=None, description="How clients reach this server, when that is not http://HOST:PORT."
    )
    admin_email: str = Field(default="admin@headwater.local", description="The owner made at the first start.")
    admin_password: SecretStr | None = Field(
        default=None, description="The owner's password; without it one is made and kept in DIR/admin-password."
    )
    organization: str = Field(default="Headwater", description="Name of the organisation made at the first start.")
    data_points: int | None = Field(
        default=None, ge=0, lt=2**62, description="The most items of an organisation made from now on; or unlimited."
    )
    master_key: SecretStr | None = Field(
        default=None, description="32 bytes, base64: seals the vault; without it DIR/master-key is made."
    )
    master_key_old: SecretStr | None = Field(
        default=None, description="The key before `master_key`, which still opens until a rotation is through."
    )
    vault_url: str | None = Field(
        default=None, description="An OpenBao or HashiCorp Vault that keeps the secrets instead of our database."
    )
    vault_token: SecretStr | None = Field(default=None, description="A token of that vault; or else an AppRole:")
    vault_role_id: str | None = Field(default=None, description="The role id of an AppRole of that vault.")
    vault_secret_id: SecretStr | None = Field(default=None, description="The secret id of that AppRole.")
    vault_mount: str = Field(default="secret", description="Where that vault has a KV engine of version 2.")
    vault_prefix: str = Field(default="headwater", description="Folder of the secrets in that engine.")
    vault_namespace: str | None = Field(default=None, description="Namespace in that vault.")
    vault_ca_file: Path | None = Field(default=None, description="Authority that issued that vault's certificate.")
    signing_key: SecretStr | None = Field(
        default=None, description="Signs tokens; the same on every machine. Without it DIR/signing-key is made."
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Addresses or networks of proxies that say truly who calls, with commas between."
    )
    oidc_issuer: str | None = Field(default=None, description="OpenID provider that people sign in with: its issuer.")
    oidc_client_id: str | None = Field(
        default=None, validate_default=True, description="The id that the provider gave this server."
    )
    oidc_client_secret: SecretStr | None = Field(default=None, description="The secret that goes with that id.")
    oidc_name: str = Field(default="OpenID Connect", description="The provider's name on the button.")
    oidc_scopes: str = Field(default="openid email profile", description="What the provider is asked for.")
    oidc_email_domains: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Only addresses of these domains sign in this way; commas between. All by default."
    )
    oidc_create_accounts: bool = Field(
        default=False, description="Make whoever the provider knows a member of the first organisation."
    )
    allow_private_endpoints: bool = Field(
        default=False, description="Let S3 endpoints on inner addresses be used (a MinIO or SeaweedFS next door)."
    )
    link_inner_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Inner hosts or networks, perhaps with :PORT, that linked URLs may reach; commas between.",
    )
    link_fetch: bool = Field(default=True, description="Whether this server reads linked URLs at all.")
    link_most_bytes: int = Field(
        default=256 * 1024**2, ge=0, description="The largest linked image that is read for its facts and thumbnail."
    )
    upload_expiry_h: int = Field(
        default=7 * 24, ge=1, description="How many hours an upload that was begun may be gone on with."
    )
    feature_index_from: int = Field(
        default=50_000, ge=1, description="From how many vectors on a feature set gets an index for similar items."
    )
    local_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(), description=f"Folders that local drivers may use, separated by '{os.pathsep}'."
    )
    nfs_mounts: Annotated[dict[str, Path], NoDecode] = Field(
        default_factory=dict, description="Where NFS shares are mounted: SERVER:/SHARE=/FOLDER, with commas between."
    )
    aws_access_key_id: str | None = Field(
        default=None, description="This server's own identity at AWS, which assumes roles of other accounts."
    )
    aws_secret_access_key: SecretStr | None = Field(default=None, description="The secret of that key.")
    aws_sts_endpoint: str | None = Field(
        default=None, description="Where AWS roles are assumed, when that is not sts.REGION.amazonaws.com."
    )
    google_credentials: Path | None = Field(
        default=None, description="The file of a service account's JSON key: this server's own identity at Google."
    )
    google_iam_endpoint: str | None = Field(
        default=None, description="Where Google lends tokens of other accounts, when not iamcredentials.googleapis.com."
    )
    google_certs_endpoint: str | None = Field(
        default=None, description="Where Google's keys are that sign pushes of Pub/Sub, when not www.googleapis.com."
    )
    aws_sns_endpoint: str | None = Field(
        default=None, description="Where subscriptions to SNS are confirmed, when that is not sns.REGION.amazonaws.com."
    )
    redirect_downloads: bool = Field(
        default=True, description="Send clients to signed URLs of the store instead of passing bytes through."
    )
    csv_bytes: int = Field(default=16 * 1024**3, ge=1, description="Size of the largest CSV file that is imported.")
    export_days: int = Field(default=7, ge=1, le=36_500, description="How long the files of an export are kept.")
    check_timeout_s: float = Field(
        default=3, gt=0, le=60, description="Longest time that a check of a storage driver may take."
    )
    column_index_items: int = Field(
        default=20_000, ge=0, description="Datasets with so many items get a column index for filters; 0: never."
    )
    column_cache_bytes: int = Field(
        default=256 * 1024**2, ge=0, description="Memory for columns of column indexes in the API process."
    )
    query_timeout_s: float = Field(
        default=30, gt=0, description="Queries that take longer are stopped and answered with 408."
    )
    slow_query_s: float = Field(
        default=0.5, ge=0, description="Queries that take longer are noted, with what would make them quicker."
    )
    stall_after_s: float = Field(
        default=60, gt=0, description="A command without progress for so long says that it hangs."
    )
    notice_days: int = Field(default=90, ge=1, le=36_500, description="How long notices are kept.")
    metrics_token: SecretStr | None = Field(
        default=None, description="Who shows this bearer token may read /metrics; without it nobody may."
    )
    read_gps: bool = Field(default=False, description="Keep GPS positions found in EXIF (in system metadata only).")
    decoders: int = Field(
        default_factory=lambda: os.cpu_count() or 1, ge=1, description="Child processes that decode images."
    )
    decode_timeout_s: float = Field(default=60, gt=0, description="Longest time one file may be decoded.")
    decode_memory_bytes: int = Field(default=2 * 1024**3, ge=256 * 1024**2, description="Memory of one decoder.")

    @field_validator("local_roots", mode="before")
    @classmethod
    def _split_roots(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(Path(part).expanduser() for part in value.split(os.pathsep) if part)
        return value

    @field_validator("nfs_mounts", mode="before")
    @classmethod
    def _split_mounts(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [part.rpartition("=") for part in value.split(",") if part.strip()]
        if not all(share.strip() and folder.strip() for share, _, folder in pairs):
            raise ValueError("give SERVER:/SHARE=/FOLDER, with commas between")
        return {share.strip(): Path(folder.strip()) for share, _, folder in pairs}

    @field_validator("vault_url")
    @classmethod
    def _no_password(cls, value: str | None) -> str | None:
        if value is not None and "@" in value:
            raise ValueError("give it without a user and password; the vault takes a token or an AppRole")
        return value

    @field_validator("trusted_proxies", "oidc_email_domains", "link_inner_hosts", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("trusted_proxies", mode="after")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for part in value:
            ip_network(part)
        return value

    @field_validator("oidc_issuer")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("https://", "http://")):
            raise ValueError("it begins with https://")
        return value

    @field_validator("oidc_client_id")
    @classmethod
    def _with_issuer(cls, value: str | None, info: ValidationInfo) -> str | None:
        if "oidc_issuer" in info.data and (value is None) != (info.data["oidc_issuer"] is None):
            raise ValueError("HEADWATER_OIDC_ISSUER and HEADWATER_OIDC_CLIENT_ID need one another")
        return value

    @field_validator("data_dir", mode="after")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()
