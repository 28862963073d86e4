"""Pictures: PIL's, tensors and arrays that are images, and what a class draws of itself. Imported when one is
shown; needs Pillow, and numpy for tensors.
"""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any

from quarterdeck.decks.render.figures import picture as as_img
from quarterdeck.decks.render.html import card, dims, first_of

SIDE = 1024
"""Longest side of a picture on the page."""
GRID = 64
_TILE = 128
_LEAST = 16
"""Pixels of a side: what is smaller is rather a weight than an image."""
_LONGEST = 8
"""Times as long as wide."""
_CHANNELS = (1, 3, 4)


def picture(value: Any) -> str:
    """At most 1,024 pixels a side; the line above tells the real size."""
    shown = value.copy()
    shown.thumbnail((SIDE, SIDE))
    facts = [f"{value.width} × {value.height}", str(value.mode)]
    if shown.size != value.size:
        facts.append(f"shown as {shown.width} × {shown.height}")
    return card("Image", facts, as_img(_png(shown), f"image, {value.width} by {value.height} pixels"))


def own_png(value: Any) -> str:
    """ "" if it has none, as the next two."""
    return _own(value, value._repr_png_(), "png")


def own_jpeg(value: Any) -> str:
    return _own(value, value._repr_jpeg_(), "jpeg")


def own_svg(value: Any) -> str:
    found = value._repr_svg_()
    return found if isinstance(found, str) else ""


def _own(value: Any, found: Any, kind: str) -> str:
    """Bytes, or base64, or either with metadata."""
    data = found[0] if isinstance(found, tuple) else found
    if not data:
        return ""
    return as_img(base64.b64decode(data) if isinstance(data, str) else data, type(value).__name__, kind=kind)


# ---- tensors and arrays: anything that can be sliced, and made a numpy array by `fetch`


def channels_first(shape: tuple[int, ...]) -> bool | None:
    """Whether an array of this shape is CHW (or NCHW); None if it is no image."""
    if len(shape) not in (3, 4):
        return None
    a, b, c = shape[-3:]
    if a in _CHANNELS and _is_picture(b, c):
        return True
    return False if c in _CHANNELS and _is_picture(a, b) else None


def grid(value: Any, fetch: Any) -> str:
    """One image, or a batch of them, side by side. Only what is shown is fetched, in one piece."""
    first = bool(channels_first(tuple(value.shape)))
    batch = value if len(value.shape) == 4 else value[None]
    count = min(GRID, batch.shape[0])
    most = SIDE if count == 1 else _TILE
    height, width = batch.shape[2:] if first else batch.shape[1:3]
    step = max(1, max(height, width) // most)
    part = batch[:count, :, ::step, ::step] if first else batch[:count, ::step, ::step]
    pixels, words = _bytes(fetch(part))
    pixels = pixels.transpose(0, 2, 3, 1) if first else pixels
    tiles = "".join(as_img(_png(_image(one)), f"image {place}") for place, one in enumerate(pixels))
    kind = "qd-grid" if count > 1 else ""
    facts = [dims((width, height)), first_of(count, batch.shape[0], "images"), words]
    title = "Images" if count > 1 else "Image"
    return card(title, facts, f'<div class="{kind}">{tiles}</div>')


def _bytes(pixels: Any) -> tuple[Any, str]:
    """Values as 0 to 255; floats are taken to be from 0 to 1, and stretched, in words, if they are not."""
    import numpy as np

    if pixels.dtype == np.uint8:
        return pixels, ""
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * 255, ""
    values = pixels.astype(np.float64)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    words = ""
    if low < 0 or high > 1:
        words = f"{low:.3g} to {high:.3g}, stretched"
        values = (values - low) / ((high - low) or 1.0)
    return (np.nan_to_num(values, posinf=1.0, neginf=0.0).clip(0, 1) * 255).round().astype(np.uint8), words


def _image(pixels: Any) -> Any:
    from PIL import Image

    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _is_picture(height: int, width: int) -> bool:
    return min(height, width) >= _LEAST and max(height, width) <= _LONGEST * min(height, width)


def _png(image: Any) -> bytes:
    buffer = BytesIO()
    ready = image if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else image.convert("RGB")
    ready.save(buffer, format="PNG")
    return buffer.getvalue()
