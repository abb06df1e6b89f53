"""Images as clients send them, made for a test."""

import random
from io import BytesIO

from PIL import Image

WEBP = {"Content-Type": "image/webp"}
PNG = {"Content-Type": "image/png"}
JPEG = {"Content-Type": "image/jpeg"}


def image(width: int = 60, height: int = 90, format: str = "PNG", **options: object) -> bytes:
    """One of random colours; no two are the same."""
    small = Image.frombytes("RGB", (8, 8), random.randbytes(8 * 8 * 3))
    file = BytesIO()
    small.resize((width, height)).save(file, format, **options)
    return file.getvalue()


def noise(width: int, height: int) -> bytes:
    """A PNG that no compression makes smaller: what it takes to decode is in proportion."""
    file = BytesIO()
    pixels = random.randbytes(width * height * 3)
    Image.frombytes("RGB", (width, height), pixels).save(file, "PNG", compress_level=0)
    return file.getvalue()


def opened(content: bytes) -> Image.Image:
    return Image.open(BytesIO(content))
