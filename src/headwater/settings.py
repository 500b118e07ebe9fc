"""Every setting of the operator; the only place that reads the environment."""

import os
from pathlib import Path
from typing import Annotated

from platformdirs import user_data_path
from pydantic import Field, SecretStr, field_validator
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
    allow_private_endpoints: bool = Field(
        default=False, description="Let S3 endpoints on inner addresses be used (a MinIO or SeaweedFS next door)."
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
    redirect_downloads: bool = Field(
        default=True, description="Send clients to signed URLs of the store instead of passing bytes through."
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

    @field_validator("data_dir", mode="after")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()
