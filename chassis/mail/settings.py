from pydantic import BaseModel, Field, SecretStr

from chassis.settings.types import Seconds
from chassis.settings.urls import MailUrl, Sender


class MailSettings(BaseModel):
    url: MailUrl | None = Field(
        None, description="Mail server, smtp:// or smtps://, or a folder, file:///a/folder"
    )
    password: SecretStr | None = Field(None, description="Password, where the URL has none")
    sender: Sender = Field("", description="Sender of mail; else the service, at example.com")
    timeout: Seconds = Field(10, description="Timeout for the mail server, s")
