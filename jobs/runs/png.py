"""Reading PNG files that someone else may have made; damaged, too large or other files are
refused."""

import io

from PIL import Image, UnidentifiedImageError

from schemas.errors import StoreError, first_line

MOST_PIXELS = 2**27
"""Largest image that is read: a grid of 500 images of 512 x 512."""


class CorruptImage(StoreError):
    """A file that is not a whole PNG, or one too large."""


def read_png(content: bytes, *, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """Return the image of a PNG file, decoded; CorruptImage: it is damaged or too large."""
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            # A file of a few bytes can claim any size, which is checked before decoding.
            if image.width * image.height > most_pixels:
                size = f"{image.width} x {image.height} pixels"
                raise CorruptImage(f"is too large: {size}, at most {most_pixels:,} are read")
            image.verify()  # checksums, which decoding passes over
        image = Image.open(io.BytesIO(content), formats=("PNG",))
        image.load()
    except CorruptImage:
        raise
    except UnidentifiedImageError as error:  # its own text is an address in memory
        raise CorruptImage("is not a PNG file") from error
    except Exception as error:  # Pillow and zlib raise many kinds of error on damage
        raise CorruptImage(f"is not a whole PNG file: {first_line(error)}") from error
    return image
