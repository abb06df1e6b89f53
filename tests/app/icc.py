"""Colour profiles (ICC.1:2010), made for a test: small, and wrong in a way that shows."""

import itertools
import struct

from PIL import ImageCms

Tags = dict[bytes, bytes]
D50 = (0.9642, 1.0, 0.8249)


def swapped_rgb() -> bytes:
    """Like sRGB, but what it calls red is blue."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    parts = srgb.replace(b"rXYZ", b"?XYZ").replace(b"bXYZ", b"rXYZ")
    return parts.replace(b"?XYZ", b"bXYZ")


def linear_grey() -> bytes:
    """Half of the numbers is half of the light, which sRGB writes as 188."""
    curve = b"curv" + bytes(4) + struct.pack(">I", 0)
    return _profile(b"scnr", b"GRAY", b"XYZ ", {b"kTRC": curve})


def cmyk_with_blue_ink() -> bytes:
    """What it calls cyan is blue; its black is black, and its other inks are not to be seen."""
    white, blue, black = bytes([255, 128, 128]), bytes([82, 207, 20]), bytes([0, 128, 128])
    inks = itertools.product((0, 1), repeat=4)
    nodes = b"".join(black if k else blue if c else white for c, _, _, k in inks)
    identity = struct.pack(">9i", *(65536 if n % 4 == 0 else 0 for n in range(9)))
    inputs, outputs = bytes(range(256)) * 4, bytes(range(256)) * 3
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + inputs + nodes + outputs
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table})


def _profile(kind: bytes, colours: bytes, space: bytes, tags: Tags) -> bytes:
    white = b"XYZ " + bytes(4) + struct.pack(">3i", *(round(part * 65536) for part in D50))
    tags = {b"wtpt": white, **tags}
    place, table, data = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += struct.pack(">4sII", name, place + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    header = struct.pack(
        ">I4sI4s4s4s12x4s28x3i48x",
        place + len(data),
        bytes(4),
        0x02400000,
        kind,
        colours,
        space,
        b"acsp",
        *(round(part * 65536) for part in D50),
    )
    return header + table + data
