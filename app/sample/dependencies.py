"""The services of the sample that a handler may ask for; app/dependencies.py has the others."""

from typing import Annotated

from fastapi import Depends

from app.services.authors import AuthorService
from app.services.books import BookService
from app.services.covers import CoverService
from app.services.dashboard import DashboardService
from app.services.offers import OfferService
from app.services.rankings import RankingService
from app.services.reviews import ReviewService
from chassis.http.dependencies import on_resources, on_session

Books = Annotated[BookService, Depends(on_session(BookService))]
Authors = Annotated[AuthorService, Depends(on_session(AuthorService))]
Reviews = Annotated[ReviewService, Depends(on_session(ReviewService))]
Rankings = Annotated[RankingService, Depends(on_resources(RankingService))]
Offers = Annotated[OfferService, Depends(on_resources(OfferService))]
Dashboard = Annotated[DashboardService, Depends(on_resources(DashboardService))]
Covers = Annotated[CoverService, Depends(on_resources(CoverService))]
