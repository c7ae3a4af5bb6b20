"""What is a picture and what is not, before anything large is decoded."""
from __future__ import annotations

import io
import os
import tracemalloc
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from stand_in import colour, jpeg

from cli.common import read_file
from models.base import BadInput
from serving.frames import Refused, decode_live, decode_upload, encode_jpeg, jpeg_header

PHOTO = colour("green", 480, 640)
GOOD = jpeg(PHOTO)


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)          # type: ignore[arg-type]
    return out.getvalue()


def huge(width: int, height: int) -> bytes:
    """A small JPEG whose header says it is large."""
    at = GOOD.index(b"\xff\xc0") + 5
    return GOOD[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + GOOD[at + 4:]


def test_a_good_frame_comes_back_in_red_green_blue() -> None:
    frame = decode_live(GOOD)
    assert frame.shape == PHOTO.shape and frame.dtype == np.uint8
    assert np.abs(frame.astype(int) - PHOTO).mean() < 12
    assert frame.mean((0, 1)).argmax() == 1
    assert decode_live(jpeg(colour("red"))).mean((0, 1)).argmax() == 0


@pytest.mark.parametrize("kind", ["grey", "progressive", "with thumbnail and comment", "cmyk"])
def test_every_usual_kind_of_jpeg_is_taken(kind: str) -> None:
    picture = Image.fromarray(PHOTO)
    data = {"grey": lambda: saved(picture.convert("L"), "JPEG"),
            "progressive": lambda: saved(picture, "JPEG", progressive=True),
            "with thumbnail and comment": lambda: saved(picture, "JPEG", comment=GOOD[:40_000]),
            "cmyk": lambda: saved(picture.convert("CMYK"), "JPEG")}[kind]()
    assert jpeg_header(data)[:2] == (480, 640)
    assert decode_live(data).shape == (480, 640, 3)


@pytest.mark.parametrize("data, code, words", [
    (b"", "not_jpeg", "start with nothing"),
    ("text", "not_jpeg", "got str"),
    (None, "not_jpeg", "got NoneType"),
    ([1, 2], "not_jpeg", "got list"),
    (saved(Image.fromarray(PHOTO[:20, :20]), "PNG"), "not_jpeg", "89 50 4E"),
    (GOOD[:200], "not_jpeg", ""),
    (GOOD[:-1000], "not_jpeg", "breaks off"),
    (b"\xff\xd8\xff\xd9", "not_jpeg", "size"),
    (b"\xff\xd8\xff" + bytes(2000), "not_jpeg", "size"),
    (b"\xff\xd8" + b"\xff" * 5000, "not_jpeg", "size"),
    (huge(0, 480), "not_jpeg", "size"),
    (huge(5000, 5000), "too_large", "5000 x 5000"),
    (huge(65535, 65535), "too_large", "65535 x 65535"),
    (GOOD + bytes(300_000), "too_large", "300,000 bytes"),
], ids=range(14))
def test_what_is_refused_says_what_was_expected_and_what_came(data: object, code: str, words: str) -> None:
    with pytest.raises(Refused) as refused:
        decode_live(data)
    assert refused.value.code == code and words in str(refused.value)
    assert ";" in str(refused.value), "the sentence ends with what to do"


def test_full_hd_is_two_megapixels_and_a_little_more_is_too_large() -> None:
    def plain(width: int, height: int) -> bytes:
        return jpeg(np.full((height, width, 3), 90, np.uint8))

    assert decode_live(plain(1920, 1080)).shape == (1080, 1920, 3)
    with pytest.raises(Refused, match="pixels"):
        decode_live(plain(1600, 1400))


def test_a_bomb_is_refused_without_the_memory_it_asks_for() -> None:
    small = saved(Image.fromarray(PHOTO[:20, :20]), "PNG")
    header = b"IHDR" + (40_000).to_bytes(4, "big") * 2 + small[24:29]
    bomb = small[:12] + header + zlib.crc32(header).to_bytes(4, "big") + small[33:]
    tracemalloc.start()
    for refuse, data in ((decode_live, huge(60_000, 60_000)), (decode_upload, bomb)):
        with pytest.raises(Refused, match="60000 x 60000|got far more"):
            refuse(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


def test_random_damage_is_a_picture_or_a_sentence_never_anything_else() -> None:
    dice = np.random.default_rng(1)
    refused = 0
    for _ in range(400):
        data = bytearray(jpeg(colour("blue"))[: dice.integers(1, 3000)] if dice.random() < 0.3 else
                         jpeg(colour("blue")))
        for at in dice.integers(0, len(data), dice.integers(1, 30)):
            data[at] = dice.integers(0, 256)
        try:
            frame = decode_live(bytes(data))
            assert frame.ndim == 3 and frame.shape[2] == 3 and frame.dtype == np.uint8
        except Refused:
            refused += 1
    assert 100 < refused < 400


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_uploads_of_three_kinds(kind: str) -> None:
    frame = decode_upload(saved(Image.fromarray(PHOTO), kind))
    assert frame.shape == PHOTO.shape and np.abs(frame.astype(int) - PHOTO).mean() < 12


def test_a_photo_taken_upright_stands_upright() -> None:
    lying = PHOTO.copy()
    lying[:, :100] = 255
    exif = Image.Exif()
    exif[0x0112] = 6                            # turn right by a quarter to see it upright
    data = saved(Image.fromarray(lying), "JPEG", exif=exif)
    for frame in (decode_upload(data), decode_live(data)):
        assert frame.shape == (640, 480, 3)
        assert frame[:90].mean() > 250 > frame[-90:].mean()


def test_transparent_becomes_white_and_sixteen_bits_become_eight() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert (decode_upload(saved(clear, "PNG")) == 255).all()
    deep = np.full((8, 8), 40_000, np.uint16)
    grey = decode_upload(cv2.imencode(".png", deep)[1].tobytes())
    assert grey.shape == (8, 8, 3) and abs(int(grey[0, 0, 0]) - 40_000 / 257) <= 1
    palette = Image.new("P", (8, 8), 3)
    assert decode_upload(saved(palette, "PNG")).shape == (8, 8, 3)


@pytest.mark.parametrize("data, words", [
    (b"GIF89a" + bytes(100), "JPEG, PNG or WebP"),
    (b"", "JPEG, PNG or WebP"),
    (bytes(20_000_001), "20 MB"),
    (saved(Image.fromarray(PHOTO), "PNG")[:3000], "whole PNG"),
], ids=range(4))
def test_refused_uploads(data: bytes, words: str) -> None:
    with pytest.raises(Refused, match=words):
        decode_upload(data)


def test_written_jpegs_are_read_back_from_bytes_and_from_shares() -> None:
    for picture in (PHOTO, PHOTO.astype(np.float32) / 255):
        assert np.abs(decode_live(encode_jpeg(picture)).astype(int) - PHOTO).mean() < 12
    assert decode_live(encode_jpeg(np.full((8, 8, 3), np.nan))).max() == 0
    with pytest.raises(ValueError, match="HxWx3"):
        encode_jpeg(np.zeros((8, 8)))


def test_a_pipe_on_the_command_line_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(BadInput, match="a device or a pipe, not a file"):
        read_file(tmp_path / "pipe.jpg")


def test_a_large_upload_is_held_about_three_times_at_most() -> None:
    """Pillow's own memory is not counted here: this is what is copied beside it."""
    data = saved(Image.new("RGB", (4000, 2000), (9, 99, 200)), "PNG")
    tracemalloc.start()
    frame = decode_upload(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * frame.nbytes
