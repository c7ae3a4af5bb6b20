"""Bytes to pictures and back. Sizes are read from the header: nothing large is decoded to be refused."""
from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image, ImageOps

from models.base import BadInput
from serving.settings import Settings

LIMITS = Settings()
JPEG = b"\xff\xd8\xff"
SCANS = 32                                     # a progressive JPEG has about ten, each a pass over all of it
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}   # the others in this range are tables
_BARE = frozenset((0x01, *range(0xD0, 0xD8)))                        # markers without a length


class Refused(BadInput):
    """A picture that cannot be taken; `code` is what the protocol calls the reason."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


def check_live(data: object, limits: Settings = LIMITS) -> bytes:
    """The bytes of one JPEG of the live channel, or a sentence that says why not; nothing is decoded yet."""
    if not isinstance(data, bytes | bytearray):
        raise Refused("not_jpeg", f"expected the bytes of a JPEG, got {type(data).__name__}; "
                      "send them binary")
    if len(data) > limits.jpeg_bytes:
        raise Refused("too_large", f"a frame may have {limits.jpeg_bytes:,} bytes, got {len(data):,}; "
                      "send it smaller or with lower quality")
    data = bytes(data)
    height, width, start = jpeg_header(data)
    if height * width > limits.jpeg_pixels:
        raise Refused("too_large", f"a frame may have {limits.jpeg_pixels:,} pixels, got {width} x {height}; "
                      "scale it down before sending")
    _check_whole(data, start)
    return data


def decode_live(data: object, limits: Settings = LIMITS) -> np.ndarray:
    """One JPEG of the live channel, upright, to HxWx3 uint8 RGB, or a sentence that says why not."""
    return decode_jpeg(check_live(data, limits))


def decode(data: bytes) -> np.ndarray:
    """Any picture that was let in, upright, to HxWx3 uint8 RGB."""
    return decode_jpeg(data) if data[:3] == JPEG else decode_upload(data)


def decode_jpeg(data: bytes, limits: Settings = LIMITS) -> np.ndarray:
    """A JPEG of any size that an upload may have."""
    height, width, start = jpeg_header(data)
    if height * width > limits.upload_pixels:
        raise Refused("too_large", f"a picture may have {limits.upload_pixels / 1e6:g} megapixels, "
                      f"got {width} x {height}; scale it down")
    _check_whole(data, start)
    frame = _decoded(data)
    if frame is None or frame.shape[0] * frame.shape[1] != height * width:
        raise Refused("not_jpeg", "expected a JPEG that can be decoded, got a damaged one; send it again")
    return frame


def _check_whole(data: bytes, start: int) -> None:
    """It ends, and it does not ask for the whole picture to be gone through thousands of times."""
    # In the compressed part 0xFF is always followed by 0 or a restart mark, so this finds the real end.
    if data.find(b"\xff\xd9", start) < 0:
        raise Refused("not_jpeg", "expected a whole JPEG, got one that breaks off: it is damaged; "
                      "send it again")
    if (scans := data.count(b"\xff\xda", start)) > SCANS:
        raise Refused("not_jpeg", f"a JPEG may have {SCANS} scans, got {scans}; "
                      "save it as an ordinary JPEG")


def jpeg_header(data: bytes) -> tuple[int, int, int]:
    """Height, width and where the frame header ends, read without decoding anything."""
    if data[:3] != JPEG:
        raise Refused("not_jpeg", f"expected a JPEG (it starts with FF D8 FF), got {len(data):,} bytes that "
                      f"start with {data[:3].hex(' ').upper() or 'nothing'}; send image/jpeg")
    at = 2
    while at + 9 < len(data):
        if data[at] != 0xFF or data[at + 1] in (0x00, 0xFF):
            at += 1                            # fill bytes, and whatever lies between two segments
            continue
        marker, length = data[at + 1], int.from_bytes(data[at + 2:at + 4], "big")
        if marker in _FRAME_HEADERS:
            height = int.from_bytes(data[at + 5:at + 7], "big")
            width = int.from_bytes(data[at + 7:at + 9], "big")
            if height and width:
                return height, width, at + 2 + length
            break
        if marker in (0xD9, 0xDA):             # the picture itself, and no size so far
            break
        at += 2 if marker in _BARE else 2 + max(2, length)
    raise Refused("not_jpeg", "expected a JPEG with its size in the header, got one without; send it again")


def _decoded(data: bytes) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:
        return None


def decode_upload(data: bytes, limits: Settings = LIMITS) -> np.ndarray:
    """A JPEG, PNG or WebP file, turned upright, on white where it is transparent; HxWx3 uint8 RGB."""
    if len(data) > limits.upload_bytes:
        raise Refused("too_large", f"a picture may have {limits.upload_bytes / 1e6:g} MB, "
                      f"got {len(data) / 1e6:.1f} MB; save it smaller")
    try:
        picture = Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP"))
    except Image.DecompressionBombError:
        raise Refused("too_large", f"a picture may have {limits.upload_pixels / 1e6:g} megapixels, "
                      "got far more; scale it down") from None
    except Exception:                          # Pillow answers a broken header with many kinds of error
        raise Refused("not_jpeg", f"expected a JPEG, PNG or WebP picture, got {len(data):,} bytes of "
                      "something else; save it in one of these") from None
    width, height = picture.size
    if width * height > limits.upload_pixels:
        raise Refused("too_large", f"a picture may have {limits.upload_pixels / 1e6:g} megapixels, "
                      f"got {width} x {height}; scale it down")
    try:
        return _upright(picture)
    except Exception:
        raise Refused("not_jpeg", f"expected a whole {picture.format} picture, got a damaged one; "
                      "save it again") from None


def _upright(picture: Image.Image) -> np.ndarray:
    if picture.mode.startswith("I") or picture.mode == "F":        # 16 bits a pixel; Pillow would clip them
        picture = Image.fromarray((np.asarray(picture).clip(0, 65535) / 257).astype(np.uint8))
    ImageOps.exif_transpose(picture, in_place=True)    # no second copy: there may be 64 megapixels
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))


def encode_jpeg(picture: np.ndarray, quality: int = 90) -> bytes:
    """HxWx3 RGB, uint8 or float in [0,1], to a JPEG."""
    if picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"a picture must be HxWx3, got shape {picture.shape}")
    if picture.dtype != np.uint8:
        picture = (np.nan_to_num(picture).clip(0, 1) * 255).round().astype(np.uint8)
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]),
                              [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"a picture of shape {picture.shape} could not be written as a JPEG")
    return data.tobytes()
