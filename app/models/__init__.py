"""Every model, so that the metadata has all tables wherever one is used."""

from app.models.api_key import ApiKey
from app.models.author import Author  # sample
from app.models.book import Book, BookAuthor  # sample
from app.models.cover import Cover  # sample
from app.models.one_time_token import OneTimeToken
from app.models.review import Review  # sample
from app.models.totp import RecoveryCode, TotpSecret
from app.models.user import LoginNetwork, RefreshToken, User, UserSession
from chassis.auth.audit_model import AuditEvent
from chassis.cache.model import CacheEpoch
from chassis.database.columns import Base
from chassis.database.replica_model import ReplicaHeartbeat
from chassis.files.model import Orphan
from chassis.idempotency.model import IdempotencyRecord
from chassis.jobs.model import OutboxEntry
