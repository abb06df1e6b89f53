from concurrent.futures import ThreadPoolExecutor

import httpx2 as httpx

from app.settings import Settings
from tests.service import create_app


async def test_links_may_have_query_parameters_of_others(client: httpx.AsyncClient):
    paths = ["/", "/docs", "/openapi.json", "/docs/assets/swagger-ui.css"]
    responses = [await client.get(f"{path}?utm_source=mail") for path in paths]

    assert [each.status_code for each in responses] == [200, 200, 200, 200]


async def test_page_has_the_title_of_the_service(client: httpx.AsyncClient):
    document = (await client.get("/openapi.json")).json()

    assert f"<title>{document['info']['title']}</title>" in (await client.get("/docs")).text


def test_document_can_be_asked_for_by_many_at_once(settings: Settings):
    app = create_app(settings)

    with ThreadPoolExecutor(8) as pool:
        documents = [each.result() for each in [pool.submit(app.openapi) for _ in range(8)]]

    assert all(document is documents[0] for document in documents)
