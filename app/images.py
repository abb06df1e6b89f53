"""Images as clients send them, made into ours.

It runs in processes of their own, where the decoders of a file that was made to harm can do none:
so it imports nothing of the application.
"""

from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from typing import NamedTuple

from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}
SIZES = {"large": 1200, "medium": 480, "small": 160}  # px, of the longer side, at most
QUALITY = 80


class NotAnImage(ValueError):
    """It is something else, whatever its name says."""


class UnusableImage(ValueError):
    """It is broken, or too large; the message says so to the client."""


class Picture(NamedTuple):
    size: str
    width: int
    height: int
    webp: bytes


def make_pictures(path: str, max_pixels: int) -> list[Picture]:
    """The image at `path` in each of SIZES, upright, of its pixels alone.

    Raises NotAnImage or UnusableImage; OSError where there is no such file.
    """
    Image.MAX_IMAGE_PIXELS = None  # ours is below, and no warning
    with open(path, "rb") as file:
        try:
            with Image.open(file, formats=[*FORMATS.values()]) as image:
                if image.width * image.height > max_pixels:
                    raise UnusableImage(
                        f"It has {image.width} x {image.height} pixels; {max_pixels} are the most"
                    )
                image.draft("RGB", (SIZES["large"], SIZES["large"]))  # a JPEG is decoded smaller
                image.load()
                with suppress(Exception):  # whatever else it says of itself may be nonsense
                    ImageOps.exif_transpose(image, in_place=True)
                return [*_shrink(image)]
        except UnidentifiedImageError:
            raise NotAnImage from None
        except UnusableImage:
            raise
        except MemoryError:
            raise UnusableImage("It takes too much memory to decode this") from None
        except Exception:  # decoders raise anything
            raise UnusableImage("It is broken and cannot be decoded") from None


def _shrink(image: Image.Image) -> Iterator[Picture]:
    """The largest first, each made of the one before."""
    if image.mode.startswith("I"):
        # 16 bits of grey, of which a conversion would keep the lower ones.
        image = image.convert("I").point(lambda grey: grey * (1 / 257)).convert("L")
    mode = "RGBA" if image.has_transparency_data else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    image.info.clear()
    for size, longest in SIZES.items():
        image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
        file = BytesIO()
        image.save(file, "WEBP", quality=QUALITY)
        yield Picture(size, image.width, image.height, file.getvalue())
