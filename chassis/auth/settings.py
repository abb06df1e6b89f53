from pydantic import BaseModel, Field, SecretStr

DEVELOPMENT_KEY = "only-good-for-development-and-tests"
MIN_SECRET_LENGTH = 32
MAKE_KEY = "make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
NO_KEY = f"TOKENS_KEY: is not set, or is the published one, so anybody can sign tokens; {MAKE_KEY}"


class TokenSettings(BaseModel):
    key: SecretStr = Field(
        SecretStr(DEVELOPMENT_KEY),
        description="Key that signs access tokens; the service refuses to start with the default",
    )
    old_keys: SecretStr | None = Field(
        None, description="Earlier keys, comma-separated, still accepted"
    )
    audience: str = Field(
        "", description="Issuer and audience of access tokens; else the name of the service"
    )
    access_ttl: int = Field(900, ge=1, description="Lifetime of an access token, s")
    refresh_ttl: int = Field(
        2_592_000, ge=1, description="Time without a refresh after which a session ends, s"
    )
    session_ttl: int = Field(7_776_000, ge=1, description="Lifetime of a session, s")
    refresh_overlap: float = Field(
        10, ge=0, le=600, description="Time in which a used refresh token works again, s"
    )
    max_sessions: int = Field(
        50, ge=1, description="Sessions per account; a further login ends the oldest"
    )

    @property
    def keys(self) -> list[str]:
        """The newest first."""
        old = self.old_keys.get_secret_value().split(",") if self.old_keys else []
        return [self.key.get_secret_value(), *(key.strip() for key in old if key.strip())]

    @property
    def is_published(self) -> bool:
        return DEVELOPMENT_KEY in self.keys


class KeySettings(BaseModel):
    prefix: str = Field(
        "",
        pattern="^[a-z0-9_]{0,40}$",
        description="What API keys begin with; else the name of the service and `_key`",
    )
    per_account: int = Field(20, ge=1, le=100, description="API keys per account")


class AuditSettings(BaseModel):
    retention: int = Field(
        31_536_000, ge=1, description="Time for which rows of the audit log are kept, s"
    )


class PasswordSettings(BaseModel):
    min_length: int = Field(12, ge=1, description="Shortest new password, characters")
    threads: int = Field(1, ge=1, description="Passwords hashed at the same time, per worker")
    max_waiting: int = Field(100, ge=1, description="Passwords waiting to be hashed (above it 503)")
    time_cost: int = Field(3, ge=1, description="Time cost of argon2id, passes")
    memory_cost: int = Field(65_536, ge=8, description="Memory cost of argon2id, KiB")
