import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, Field, SecretStr

from chassis.settings.types import Seconds
from chassis.settings.urls import FilesUrl, HttpUrl


class FilesSettings(BaseModel):
    url: FilesUrl | None = Field(
        None, description="Where files are stored: s3://bucket or file:///a/folder"
    )
    endpoint: HttpUrl | None = Field(
        None, description="URL of the S3-compatible server; else Amazon's"
    )
    public_endpoint: HttpUrl | None = Field(
        None, description="URL of that server for clients, where it differs"
    )
    region: str | None = Field(None, description="Region of the bucket")
    access_key_id: str | None = Field(
        None, description="Access key ID; else the credentials of AWS_*"
    )
    secret_access_key: SecretStr | None = Field(None, description="Secret access key")
    timeout: Seconds = Field(5, description="Timeout for that server, retries included, s")
    url_ttl: int = Field(300, ge=1, description="Shortest lifetime of a signed URL, s")
    accel: str | None = Field(
        None, description="Path under which nginx serves the folder (X-Accel-Redirect)"
    )
    uploads: Path | None = Field(
        None, description="Folder for unfinished uploads; else one beside the files"
    )

    @property
    def folder(self) -> Path | None:
        """None unless FILES_URL is a folder."""
        parts = urlsplit(self.url or "")
        return Path(unquote(parts.path)) if parts.scheme == "file" else None

    @property
    def upload_folder(self) -> Path:
        beside = Path(tempfile.gettempdir()) if self.folder is None else self.folder / "uploads"
        return self.uploads or beside
