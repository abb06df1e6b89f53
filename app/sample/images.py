"""Decodes uploaded images and encodes them as WebP.

It runs in processes of the pool, where an exploited decoder can do no harm, and imports nothing of
the application.
"""

from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from typing import NamedTuple

from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}
SIZES = {"large": 1200, "medium": 480, "small": 160}  # px, of the longer side, at most
QUALITY = 80
MAX_PROFILE = 4_194_304  # bytes; profiles of printers have up to 3 MB

# Decompressed; above it Pillow refuses the file.
PngImagePlugin.MAX_TEXT_CHUNK = MAX_PROFILE


class NotAnImage(ValueError):
    """The file is in none of FORMATS."""


class UnusableImage(ValueError):
    """It is broken or too large; the message is shown to the client."""


class Picture(NamedTuple):
    size: str
    width: int
    height: int
    webp: bytes


def make_pictures(path: str, max_pixels: int) -> list[Picture]:
    """The image at `path` in each of SIZES, upright, without metadata.

    Raises NotAnImage or UnusableImage; OSError where there is no such file.
    """
    Image.MAX_IMAGE_PIXELS = None  # `max_pixels` is checked below
    with open(path, "rb") as file:
        try:
            with Image.open(file, formats=[*FORMATS.values()]) as image:
                if image.width * image.height > max_pixels:
                    raise UnusableImage(
                        f"It has {image.width} x {image.height} pixels; {max_pixels} are the most"
                    )
                image.draft("RGB", (SIZES["large"], SIZES["large"]))  # a JPEG is decoded smaller
                image.load()
                with suppress(Exception):  # EXIF data may be invalid
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
    profile = image.info.get("icc_profile")
    grey = image.mode in ("1", "L", "LA") or image.mode.startswith("I")
    if image.mode.startswith("I"):
        # 16-bit grey, of which a conversion would keep the lower bits.
        image = image.convert("I").point(lambda grey: grey * (1 / 257)).convert("L")
    mode = "RGBA" if image.has_transparency_data else "CMYK" if image.mode == "CMYK" else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    image.info.clear()
    image.thumbnail((SIZES["large"], SIZES["large"]), Image.Resampling.LANCZOS)
    image = _as_srgb(image, profile, grey)
    for size, longest in SIZES.items():
        image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
        file = BytesIO()
        image.save(file, "WEBP", quality=QUALITY)
        yield Picture(size, image.width, image.height, file.getvalue())


def _as_srgb(image: Image.Image, profile: bytes | None, grey: bool) -> Image.Image:
    """Converted by its colour profile; unchanged if that is invalid."""
    if profile and len(profile) <= MAX_PROFILE:
        with suppress(Exception):  # littlecms refuses it, or it is for another mode
            return _convert(image, profile, grey)
    return image


def _convert(image: Image.Image, profile: bytes, grey: bool) -> Image.Image:
    # Imported here: the workers import this module for its names, and need no littlecms.
    from PIL import ImageCms

    source = ImageCms.ImageCmsProfile(BytesIO(profile))
    colours = image.convert("RGB") if image.mode == "RGBA" else image
    if grey and source.profile.xcolor_space.strip() == "GRAY":
        colours = image.getchannel(0)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    converted = ImageCms.ImageCmsTransform(source, srgb, colours.mode, "RGB").apply(colours)
    if image.mode == "RGBA":
        converted.putalpha(image.getchannel("A"))
    return converted
