"""Every model, so that the metadata is whole wherever one of them is used."""

from app.models.author import Author
from app.models.base import Base
from app.models.book import Book, BookAuthor
from app.models.cache_epoch import CacheEpoch
from app.models.cover import Cover, Orphan
from app.models.kept_answer import KeptAnswer
from app.models.outbox import OutboxEntry
from app.models.replica_heartbeat import ReplicaHeartbeat
from app.models.review import Review
from app.models.user import RefreshToken, User, UserSession
