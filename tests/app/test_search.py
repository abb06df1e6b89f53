import asyncio

import httpx2 as httpx
import pytest
import unicodedata2
from sqlalchemy import insert, select, text

from app.models import Book
from app.models.full_text import matches_phrases, search_words
from app.services.book_search import FIRST_WALK
from chassis.resources import Resources
from chassis.text.search_words import tokenize
from tests.app.catalogue import Catalogue
from tests.app.searches import index_only
from tests.databases import mariadb_only

NO_STORE = {"Cache-Control": "no-store"}
PATIENCE = 100  # tries, of a tenth of a second


async def found(client: httpx.AsyncClient, q: str) -> list[str]:
    """By looking at the words of each book, and by the full-text index."""
    titles = await _found(client, q)
    with index_only():
        assert await _found(client, q) == titles
    return titles


async def _found(client: httpx.AsyncClient, q: str) -> list[str]:
    response = await client.get("/v1/books", params={"q": q, "limit": 100}, headers=NO_STORE)
    assert response.status_code == 200, response.text
    return [book["title"] for book in response.json()["items"]]


@pytest.mark.parametrize(
    ("title", "q"),
    [
        ("The Lord of the Rings", "rings lord"),
        ("The Lord of the Rings", "RINGS"),
        ("The Lord of the Rings", "the of"),  # stop words of MariaDB
        ("It", "it"),  # shorter than MariaDB's shortest word
        ("1984", "1984"),
        ("Cien años de soledad", "anos"),
        ("L'Étranger", "etranger"),
        ("Straße", "STRASSE"),
        ("Acme™ guide", "acmetm"),
        ("𠮷野家の歴史", "𠮷野家"),
        ("Война и мир", "война"),
        ("紅樓夢", "樓"),
        ("吾輩は猫である", "猫である"),
        ("الف ليلة وليلة", "ليلة"),
        ('C++ & -Wall: a "primer" (*)', '+primer* -wall "c'),  # operators of both engines
        ("x" * 200, "x" * 200),
    ],
)
async def test_word_of_a_title_finds_it(
    client: httpx.AsyncClient, catalogue: Catalogue, title: str, q: str
):
    await catalogue.add_book(title)
    await catalogue.add_book("Something else")

    assert await found(client, q) == [title]


# Words of the first article of the Universal Declaration of Human Rights, as Unicode samples it;
# each with another that differs by a mark or a letter.
SCRIPTS = {
    "Latin": ("Tất cả mọi người", "Tất cả mọi ngươn", "nguoi"),
    "Latin, stroked": ("Stadt Łódź", "Stadt Lodzi", "lodz"),
    "Latin, Turkish": ("İnsanlar IŞIK ılık", "İnsan", "insanlar isik ilik"),
    "Greek": ("ἄνθρωποι γεννιοῦνται", "άνθρωπος", "ΑΝΘΡΩΠΟΙ"),
    "Cyrillic": ("Все лю\u0301ди рождаются", "Все юди", "люди"),
    "Cyrillic, short i": ("мой", "мои", "мой"),
    "Cyrillic, yi": ("їх", "іх", "їх"),
    "Cyrillic, yo": ("Ёлка", "Ялка", "елка"),
    "Armenian": ("Բոլոր մարդիկ", "Բոլոր մարդ", "ՄԱՐԴԻԿ"),
    "Georgian": ("ყველა ადამიანი", "ყველა ადამიანს", "ᲐᲓᲐᲛᲘᲐᲜᲘ"),
    "Hebrew": ("כָּל בְּנֵי הָאָדָם", "כל בני", "האדם"),
    "Arabic": ("يُولَدُ جَمِيعُ النَّاسِ أَحْرَارًا", "جميل", "جميع احرارا"),
    "Arabic, tatweel": ("النـــاس", "النس", "الناس"),
    "Persian": ("می\u200cشوند", "می", "میشوند"),
    "Syriac": ("ܟܠܗܘܢ ܒܢܝ̈ܢܫܐ", "ܒܢܝܫܐ", "ܒܢܝܢܫܐ"),
    "Thaana": ("އިންސާނުން", "އިންސާނުނ", "އިންސާނުން"),
    "N'Ko": ("ߡߐ߱ ߟߎ߬", "ߡߐ߲", "ߡߐ߱"),
    "Devanagari": ("दिन की बात", "दान कथा", "दिन"),
    "Bengali": ("সমস্ত মানুষ", "সমস্ত মানষ", "মানুষ"),
    "Bengali, khanda ta": ("হঠাৎ", "হঠাত", "হঠাত্\u200d"),
    "Gurmukhi": ("ਸਾਰਾ ਮਨੁੱਖੀ", "ਸਾਰਾ ਮਨੱਖੀ", "ਮਨੁੱਖੀ"),
    "Gujarati": ("પ્રતિષ્ઠા", "પ્રતષ્ઠા", "પ્રતિષ્ઠા"),
    "Odia": ("ସମସ୍ତ ମନୁଷ୍ୟ", "ସମସ୍ତ ମନଷ୍ୟ", "ମନୁଷ୍ୟ"),
    "Tamil": ("மனிதப் பிறவியினர்", "மனித பிறவியினர", "பிறவியினர்"),
    "Telugu": ("ప్రతిపత్తి", "ప్రతపత్తి", "ప్రతిపత్తి"),
    "Kannada": ("ಎಲ್ಲಾ ಮಾನವರೂ", "ಎಲ್ಲಾ ಮಾನವರು", "ಮಾನವರೂ"),
    "Malayalam": ("അവൻ വന്നു", "അവന് വന്നു", "അവൻ"),
    "Malayalam, joiner": ("അവൻ വന്നു", "അവന് വന്നു", "അവന്\u200d"),
    "Malayalam, long": (
        "മനുഷ്യരെല്ലാവരുംതുല്യാവകാശങ്ങളോടുംഅ",
        "മനുഷ്യരെല്ലാവരുംതുല്യാവകാശങ്ങളോടുംആ",
        "മനുഷ്യരെല്ലാവരുംതുല്യാവകാശങ്ങളോടുംഅ",
    ),
    "Sinhala": ("සියලු මනුෂ්\u200dයයෝ", "සියල මනුෂ්යය", "සියලු මනුෂ්යයෝ"),
    "Thai": ("มนุษย์ทั้งหลายเกิดมา", "มนุษย์ทังหลายเกิดมา", "ทั้งหลาย"),
    "Thai, digits": ("๒๕๖๗", "๒๕๖๘", "2567"),
    "Lao": ("ມະນຸດທຸກຄົນເກີດມາ", "ມະນຸດທກຄົນເກີດມາ", "ທຸກຄົນ"),
    "Khmer": ("មនុស្សទាំងអស់កើតមក", "មនុស្សទាងអស់កើតមក", "ទាំងអស់"),
    "Myanmar": ("လူတိုင်းသည်", "လူတိင်းသည်", "တိုင်း"),
    "Tai Tham": ("ᨾᨶᩩᩔ᩼", "ᨾᨶᩔ᩼", "ᨾᨶᩩᩔ᩼"),
    "Javanese": ("ꦱꦧꦼꦤ꧀ꦲꦸꦮꦺꦴꦁ", "ꦱꦧꦤ꧀ꦲꦮꦺꦴꦁ", "ꦲꦸꦮꦺꦴꦁ"),
    "Tibetan": ("འགྲོ་བ་མིའི་རིགས", "འགྲོ་བ་མའི་རིགས", "མིའི"),
    "Ethiopic": ("የሰው፡ልጅ፡ሁሉ", "የሰው፡ልጆ፡ሁሉ", "ልጅ"),
    "Mongolian": ("ᠬᠦᠮᠦᠨ ᠪᠦᠷ", "ᠬᠦᠮᠦ", "ᠬᠦᠮᠦ\u180bᠨ"),
    "Cherokee": ("ᏂᎦᏓ ᎠᏂᏴᏫ", "ᏂᎦᏔ", "ꮒꭶꮣ"),
    "Syllabics": ("ᐃᓄᓕᒫᑦ ᐊᓂᖅᑎᕆᔪᓕᒫᑦ", "ᐃᓄᓕᒪᑦ", "ᐃᓄᓕᒫᑦ"),
    "Tifinagh": ("ⵉⵎⴷⴰⵏⵏ ⴰⴽⴽⵯ", "ⵉⵎⴷⴰⵏ", "ⵉⵎⴷⴰⵏⵏ"),
    "Hangul": (
        "모든 인간은 태어날",
        "모든 인간을",
        "\u110b\u1175\u11ab\u1100\u1161\u11ab\u110b\u1173\u11ab",
    ),
    "Han": ("人人生而自由", "人人而生自由", "生而"),
    "Han, above the BMP": ("𠮷野家の歴史", "吉野家の歴史", "𠮷野"),
    "Kana": ("パパの本", "ハハの本", "パパ"),
    "Kana, halfwidth": ("パパの本", "ハパの本", "ﾊﾟﾊﾟ"),
    "Kana, unvoiced": ("ハハの本", "パパの本", "ハハ"),
    "Yi": ("ꊿꂷꃅꄿꐨ", "ꊿꃅꂷꄿꐨ", "ꂷꃅ"),
    "Meetei Mayek": ("ꯃꯤꯑꯣꯏꯕ", "ꯃꯑꯣꯏꯕ", "ꯃꯤꯑꯣꯏꯕ"),
    "Ol Chiki": ("ᱡᱚᱛᱚ ᱦᱚᱲ", "ᱡᱚᱛᱚ ᱦᱚ", "ᱦᱚᱲ"),
    "Adlam": ("𞤋𞤲𞥆𞤢𞤥𞤢", "𞤋𞤲𞤢𞤥𞤢", "𞤭𞤲𞥆𞤢𞤥𞤢"),
    "Chakma": ("𑄝𑄬𑄇𑄴", "𑄝𑄇𑄴", "𑄝𑄬𑄇𑄴"),
    "formats": ("Donau\u00addampf\u2060schiff\u200e", "Donau", "donaudampfschiff"),
    "compatibility": ("ﬁne ＡＢＣ №½", "fine abd", "fine abc"),
    "letters that have no decomposition": (
        "Øre hæl œuvre straße ıssız Đuro Ħal þorn ðe Ŧ",
        "Ore hal euvre",
        "ore hael oeuvre strasse issiz duro hal thorn de t",
    ),
}


@pytest.mark.parametrize(("title", "other", "q"), SCRIPTS.values(), ids=SCRIPTS)
async def test_word_of_any_script_finds_its_title_only(
    client: httpx.AsyncClient, catalogue: Catalogue, title: str, other: str, q: str
):
    await catalogue.add_book(title)
    await catalogue.add_book(other)

    assert await found(client, q) == [title]


async def test_letters_of_all_scripts_are_found_by_themselves(resources: Resources):
    """Whatever the tokenizer of the database knows of them.

    While InnoDB writes what many rows have added to its index, a query may miss some of them.
    """
    letters = [c for c in map(chr, range(0x30000)) if unicodedata2.category(c)[0] in "LN"]
    by_word = {tokenize(char)[0]: char for char in letters[::40] if len(tokenize(char)) == 1}
    figures = {"ratings_count": 0, "ratings_sum": 0}
    rows = [{"title": char, **figures, **search_words(char, [])} for char in by_word.values()]
    async with resources["sessions"].write() as session:
        await session.execute(insert(Book), rows)
        await session.commit()
    words = list(by_word)

    for start in range(0, len(words), 1000):
        some = words[start : start + 1000]
        any_of_them = {"mariadb_query": " ".join(some), "sqlite_query": " OR ".join(some)}
        titles: set[str] = set()
        for _ in range(PATIENCE):
            async with resources["sessions"].read() as session:
                query = select(Book.title).where(matches_phrases())
                titles = {*await session.scalars(query, any_of_them)}
            if len(titles) == len(some):
                break
            await asyncio.sleep(0.1)
        assert titles == {by_word[word] for word in some}


@mariadb_only
async def test_search_that_would_take_too_much_memory_is_refused(
    client: httpx.AsyncClient, resources: Resources
):
    """With the least that MariaDB may be told: a megabyte, which no other test needs."""
    figures = {"ratings_count": 0, "ratings_sum": 0}
    titles = ["Kyoto"] * FIRST_WALK + ["東京"] * 5_000
    rows = [{"title": title, **figures, **search_words(title, [])} for title in titles]
    limit = "innodb_ft_result_cache_limit"
    async with resources["sessions"].write() as session:
        await session.execute(insert(Book), rows)
        await session.commit()
        usual = await session.scalar(text(f"SELECT @@GLOBAL.{limit}"))
        await session.execute(text(f"SET GLOBAL {limit} = 1000000"))
        try:
            refused = await client.get("/v1/books", params={"q": "東京"})
        finally:
            await session.execute(text(f"SET GLOBAL {limit} = {usual}"))
    accepted = await client.get("/v1/books", params={"q": "東京"})

    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert accepted.status_code == 200


@pytest.mark.parametrize("q", ["", " ", "!?", "☃ 👍", "\u0301", "\u200d", '+-*"()', "_"])
async def test_query_without_a_word_is_refused(client: httpx.AsyncClient, q: str):
    response = await client.get("/v1/books", params={"q": q})

    assert response.status_code == 422
    assert response.json()["detail"] == "Has no word to search for"


@pytest.mark.parametrize(
    "q",
    ["กข" * 100, "a " * 100, "क" * 200, "a\u0301" * 100, "人民" * 100, "\ufdfa " * 50, "क " * 100],
    ids=lambda q: f"U+{ord(q[0]):04X}",
)
async def test_longest_query_finds_what_holds_it(
    client: httpx.AsyncClient, catalogue: Catalogue, q: str
):
    book = await catalogue.add_book(f"{q} {q}")
    await catalogue.add_book("Something else")

    assert await found(client, q) == [book["title"]]


async def test_characters_that_stand_for_many_words_are_bounded(client: httpx.AsyncClient):
    response = await client.get("/v1/books", params={"q": "\u3300" * 200})

    assert (response.status_code, "more than 200 words" in response.text) == (422, True)


async def test_words_may_come_from_title_and_authors(
    client: httpx.AsyncClient, catalogue: Catalogue
):
    author_id = await catalogue.add_author("Ursula K. Le Guin")
    await catalogue.add_book("The Dispossessed", author_ids=[author_id])
    await catalogue.add_book("The Lathe of Heaven", author_ids=[author_id])

    assert await found(client, "le guin heaven") == ["The Lathe of Heaven"]
    assert len(await found(client, "ursula")) == 2


async def test_part_of_a_word_finds_nothing(client: httpx.AsyncClient, catalogue: Catalogue):
    await catalogue.add_book("Frankenstein")

    assert await found(client, "frank") == []


async def test_search_follows_changes(client: httpx.AsyncClient, catalogue: Catalogue):
    book = await catalogue.add_book("Before")

    await catalogue.change(f"/v1/books/{book['id']}", title="After")
    assert (await found(client, "before"), await found(client, "after")) == ([], ["After"])

    await client.delete(f"/v1/books/{book['id']}", headers=catalogue.editor)
    assert await found(client, "after") == []
