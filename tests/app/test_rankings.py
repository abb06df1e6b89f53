import httpx2 as httpx
from sqlalchemy import update

from app.models import Book
from app.sample.jobs import refresh_rankings
from chassis.cache.metrics import CacheMetrics
from chassis.resources import Resources
from tests.app.catalogue import Catalogue
from tests.jobs import job_context


async def rate(resources: Resources, book: dict[str, int], count: int, total: int) -> None:
    async with resources["sessions"].write.begin() as session:
        await session.execute(
            update(Book).where(Book.id == book["id"]).values(ratings_count=count, ratings_sum=total)
        )


async def test_many_good_ratings_beat_a_few_perfect_ones(
    client: httpx.AsyncClient, catalogue: Catalogue, resources: Resources
):
    loved = await catalogue.add_book("Loved by three")
    classic = await catalogue.add_book("A classic")
    weak = await catalogue.add_book("Weak")
    await catalogue.add_book("Unrated")
    await rate(resources, loved, 3, 15)
    await rate(resources, classic, 997, 4486)
    await rate(resources, weak, 500, 1000)

    ranking = (await client.get("/v1/rankings/books")).json()["items"]

    assert [(item["rank"], item["book"]["title"]) for item in ranking] == [
        (1, "A classic"),
        (2, "Loved by three"),
        (3, "Weak"),
    ]
    # 500 ratings of 3.6673, the averages of all books, and its own three.
    prior, mean = 500, (15 + 4486 + 1000) / 1500
    assert ranking[1]["score"] == round((prior * mean + 15) / (prior + 3), 4)
    assert ranking[1]["book"]["average_rating"] == 5
    assert ranking[0]["book"]["authors"] == classic["authors"]


async def test_ranking_of_one_language(
    client: httpx.AsyncClient, catalogue: Catalogue, resources: Resources
):
    for title, language, total in (("Un", "fre", 4), ("Deux", "fre", 5), ("Three", "eng", 5)):
        book = await catalogue.add_book(title, language=language)
        await rate(resources, book, 1, total)

    best = await client.get("/v1/rankings/books", params={"language": "fre", "limit": 1})
    none = await client.get("/v1/rankings/books", params={"language": "ger"})

    assert [item["book"]["title"] for item in best.json()["items"]] == ["Deux"]
    assert none.json() == {"items": []}


async def test_rankings_wait_for_their_visitor(catalogue: Catalogue, resources: Resources):
    await catalogue.add_book()
    await refresh_rankings(job_context(resources))
    before = resources["metrics"].of(CacheMetrics).cache_loads._value.get()
    await catalogue.client.get("/v1/rankings/books?limit=100")

    after = resources["metrics"].of(CacheMetrics).cache_loads._value.get()
    assert after - before == 1  # the answer, out of the ranking that was there
