"""The routers of the sample, what is requested most first."""

from app.routers import authors, books, covers, dashboard, offers, rankings, reviews

MODULES = [books, authors, rankings, reviews, covers, offers, dashboard]
