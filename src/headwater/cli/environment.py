"""What the command line takes from the environment as a client; the server's settings are in headwater.settings."""

from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class ClientEnvironment(BaseSettings):
    """The variables that the clouds' own tools read as well, and where the server is."""

    model_config = SettingsConfigDict(env_ignore_empty=True, frozen=True)

    url: str | None = Field(default=None, validation_alias="HEADWATER_URL")
    token: SecretStr | None = Field(default=None, validation_alias="HEADWATER_TOKEN")
    s3_key: str | None = Field(default=None, validation_alias="AWS_ACCESS_KEY_ID")
    s3_secret: SecretStr | None = Field(default=None, validation_alias="AWS_SECRET_ACCESS_KEY")
    s3_session_token: SecretStr | None = Field(default=None, validation_alias="AWS_SESSION_TOKEN")
    s3_endpoint: str | None = Field(
        default=None, validation_alias=AliasChoices("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    )
    s3_region: str | None = Field(default=None, validation_alias=AliasChoices("AWS_REGION", "AWS_DEFAULT_REGION"))
    google_key_file: Path | None = Field(default=None, validation_alias="GOOGLE_APPLICATION_CREDENTIALS")
    azure_key: SecretStr | None = Field(default=None, validation_alias="AZURE_STORAGE_KEY")
    azure_sas: SecretStr | None = Field(default=None, validation_alias="AZURE_STORAGE_SAS_TOKEN")
    azure_client_id: str | None = Field(default=None, validation_alias="AZURE_CLIENT_ID")
    azure_tenant_id: str | None = Field(default=None, validation_alias="AZURE_TENANT_ID")
    azure_client_secret: SecretStr | None = Field(default=None, validation_alias="AZURE_CLIENT_SECRET")
