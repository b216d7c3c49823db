"""What a file says about itself, read without decoding one pixel.

The headers are walked here rather than opened with Pillow, because this runs on strangers' bytes in a
process that serves everybody: Pillow reports a decompression bomb as a warning (switching warnings to
errors is process-wide, hence not thread-safe), skips junk in a JPEG byte by byte in Python (seconds for
20 MB) and lets libwebp reserve two whole canvases before it tells the size.
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple, NoReturn

from app.errors import FieldProblem, InvalidFields, UnsupportedMedia

FORMATS: Final = ("PNG", "JPEG", "WEBP")
"""Every format we ever decode; Pillow knows 42, and most of its advisories sit in the other 39."""
MAX_SIDE: Final = 8192
"""Longest side in pixels: the largest texture nearly every GPU takes."""
MAX_PIXELS: Final = 4096 * 4096
"""Most pixels of an input: 50 MB as RGB, which a worker can hold several times."""
MAX_PARTS: Final = 65_536
"""Most chunks or JPEG segments that we walk. A 20 MB file cut into 8 kB chunks has 2,500."""

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers SOF0 to SOF15 (ITU-T T.81 table B.1); the three left out are DHT, JPG and DAC."""
_JPEG_BARE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers TEM, RST0 to RST7 and SOI: no length follows them."""
_JPEG_MARKER: Final = re.compile(rb"(?<=\xff)[^\x00\xff]", re.DOTALL)
"""A marker's second byte, past any junk and fill bytes, which libjpeg skips too; linear in the input."""
_SCAN, _END, _APP1 = 0xDA, 0xD9, 0xE1
_EXIF: Final = b"Exif\0\0"
_WEBP_HAS_EXIF: Final = 8
"""Flag E of a VP8X chunk, without which libwebp looks for no EXIF; RFC 9649 section 2.7."""
_ORIENTATION: Final = 0x0112
_TURNED: Final = frozenset({5, 6, 7, 8})
"""Values of EXIF's Orientation for which width and height change places; TIFF 6.0, page 36."""
_ALPHA_TYPES: Final = frozenset({4, 6})
"""Colour types with an alpha channel; any other may have a tRNS chunk. https://www.w3.org/TR/png-3/#11IHDR."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a usable file promises: its format (one of `FORMATS`) and its size in pixels as stored.

    `turned` says that viewers show it turned by a right angle, as a portrait from a phone often is: EXIF
    orientation 5 to 8. One in XMP only is not seen here.
    `alpha` says that its pixels have an alpha channel, or a colour that counts as transparent; it is told of
    PNG only.
    """

    format: str
    width: int
    height: int
    turned: bool = False
    alpha: bool = False

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height as viewers show it, and as `decode` gives it."""
        return (self.height, self.width) if self.turned else (self.width, self.height)


class _Found(NamedTuple):
    """What a walk through a file found: its size, where the TIFF header of its EXIF begins, and `alpha`."""

    width: int
    height: int
    exif: int | None = None
    alpha: bool = False


class _UnusableError(Exception):
    """The file is of the right kind, but broken or animated; the message completes "the file …"."""


def inspect(
    data: bytes,
    *,
    field: str,
    max_pixels: int = MAX_PIXELS,
    max_side: int = MAX_SIDE,
    accepted: Iterable[str] = FORMATS,
) -> Header:
    """Give format and size of an image file that is worth decoding.

    Costs microseconds for JPEG and WebP, one CRC-32 over the file for PNG (under 1 ms per MB), and never
    memory: no pixel is decoded. So a file that passes may still turn out corrupt in `decode`.

    Args:
        data: the whole file.
        field: the public name of the field it came in, for the error.
        max_pixels: largest width times height.
        max_side: longest side in pixels; `MAX_RESULT_SIDE` of `app.domain.transform` for what we made.
        accepted: the formats this dialect takes, out of `FORMATS`.

    Raises:
        UnsupportedMedia: not an image at all, or of a format that is not accepted.
        InvalidFields: an image, but too large, animated, truncated or corrupt; the message says which,
            and what to do.
    """
    accepted = tuple(accepted)
    kind = _kind(data)
    if kind is None or kind not in accepted:
        found = "is not an image we can read" if kind is None else f"is a {kind} file"
        raise UnsupportedMedia(f"{field}: {found}; send a {_either(accepted)} file")
    try:
        width, height, exif, alpha = _READERS[kind](data)
    except (_UnusableError, struct.error, IndexError) as problem:
        reason = str(problem) if isinstance(problem, _UnusableError) else "ends too early"
        _refuse(field, f"the {kind} file {reason}; send a still image that opens in an image viewer")
    _check_size(width, height, field=field, max_pixels=max_pixels, max_side=max_side)
    return Header(format=kind, width=width, height=height, turned=_is_turned(data, exif), alpha=alpha)


def _kind(data: bytes) -> str | None:
    """Tell the format by the first bytes, whatever the file was called."""
    if data.startswith(_PNG_SIGNATURE):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return None


def _either(names: tuple[str, ...]) -> str:
    """Join as in "PNG, JPEG or WEBP"."""
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _refuse(field: str, message: str) -> NoReturn:
    raise InvalidFields(FieldProblem(field=field, message=message)) from None


def _check_size(width: int, height: int, *, field: str, max_pixels: int, max_side: int) -> None:
    if not width or not height:
        _refuse(field, f"{width} x {height} pixels is empty; send an image of at least 1 x 1")
    if max(width, height) > max_side:
        _refuse(
            field,
            f"{width} x {height} pixels is too large; resize it so that no side is over {max_side}",
        )
    if width * height > max_pixels:
        _refuse(
            field,
            f"{width} x {height} is {width * height:,} pixels, at most {max_pixels:,} are accepted; "
            "resize it before sending",
        )


def _is_turned(data: bytes, exif: int | None) -> bool:
    """Whether the EXIF whose TIFF header begins here turns the picture; EXIF that cannot be read does not.

    A directory is a count, then entries of 12 bytes: tag (2 bytes), type (2), count (4), value (4);
    TIFF 6.0, page 14.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[exif : exif + 4]) if exif is not None else None
    if exif is None or order is None:
        return False
    try:
        (directory,) = struct.unpack_from(f"{order}I", data, exif + 4)
        (entries,) = struct.unpack_from(f"{order}H", data, exif + directory)
        for entry in range(entries):
            tag, value = struct.unpack_from(f"{order}H6xH", data, exif + directory + 2 + 12 * entry)
            if tag == _ORIENTATION:
                return value in _TURNED
    except struct.error:
        return False
    return False


def _png_size(data: bytes) -> _Found:
    """Walk all chunks of a PNG, checking each CRC, up to IEND; what follows is ignored.

    Chunk layout: length (4 bytes, big endian), type (4), content, CRC-32 of type and content (4);
    https://www.w3.org/TR/png-3/#5Chunk-layout.
    """
    size: tuple[int, int] | None = None
    has_pixels = alpha = False
    exif: int | None = None
    view = memoryview(data)
    position = len(_PNG_SIGNATURE)
    for _ in range(MAX_PARTS):
        (length,) = struct.unpack_from(">I", data, position)
        kind = data[position + 4 : position + 8]
        if size is None:
            if kind != b"IHDR":
                raise _UnusableError("does not begin with an IHDR chunk")
            size = struct.unpack_from(">II", data, position + 8)
            alpha = data[position + 17] in _ALPHA_TYPES
        end = position + 8 + length
        (crc,) = struct.unpack_from(">I", data, end)
        if zlib.crc32(view[position + 4 : end]) != crc:
            raise _UnusableError(f"is corrupt: its {kind.decode('latin-1')!r} chunk has a wrong checksum")
        if kind == b"acTL" and struct.unpack_from(">I", data, position + 8)[0] > 1:
            raise _UnusableError("is animated")
        has_pixels = has_pixels or kind == b"IDAT"
        alpha = alpha or kind == b"tRNS"
        exif = position + 8 if kind == b"eXIf" else exif
        if kind == b"IEND":
            if not has_pixels:
                raise _UnusableError("holds no pixels")
            return _Found(*size, exif, alpha)
        position = end + 4
    raise _UnusableError(f"has more than {MAX_PARTS:,} chunks")


def _jpeg_size(data: bytes) -> _Found:
    """Walk the segments of a JPEG up to its first scan, then look for the end marker behind it.

    Inside a scan every 0xFF is followed by 0x00 or a restart marker, so the two bytes of EOI are EOI. Bytes
    behind it, which many cameras append, do no harm. Several pictures in one file (MPO) count as the first.
    """
    size: tuple[int, int] | None = None
    exif: int | None = None
    position = 2
    for _ in range(MAX_PARTS):
        found = _JPEG_MARKER.search(data, position)
        if found is None:
            raise _UnusableError("ends too early")
        position, marker = found.end(), data[found.start()]
        if marker == _END:
            raise _UnusableError("holds no pixels")
        if marker in _JPEG_BARE:
            continue
        if marker in _JPEG_FRAMES and size is None:
            height, width = struct.unpack_from(">HH", data, position + 3)
            size = (width, height)
        if marker == _APP1 and exif is None and data.startswith(_EXIF, position + 2):
            exif = position + 2 + len(_EXIF)
        (length,) = struct.unpack_from(">H", data, position)
        position += length
        if marker == _SCAN:
            return _Found(*_until_the_end(data, position, size), exif)
    raise _UnusableError(f"has more than {MAX_PARTS:,} segments")


def _until_the_end(data: bytes, position: int, size: tuple[int, int] | None) -> tuple[int, int]:
    if size is None:
        raise _UnusableError("does not say its size")
    if data.find(b"\xff\xd9", position) < 0:
        raise _UnusableError("ends too early")
    return size


def _webp_size(data: bytes) -> _Found:
    """Read the first chunk of a WebP, of any of its three kinds.

    Layouts: RFC 9649 sections 2.5 (VP8), 2.6 (VP8L) and 2.7 (VP8X, whose flag 2 says animation).
    """
    (length,) = struct.unpack_from("<I", data, 4)
    if length + 8 > len(data):
        raise _UnusableError("ends too early")
    kind = data[12:16]
    if kind == b"VP8X":
        if data[20] & 2:
            raise _UnusableError("is animated")
        sides = data[24:27], data[27:30]
        width, height = (int.from_bytes(side, "little") + 1 for side in sides)
        exif = _webp_exif(data) if data[20] & _WEBP_HAS_EXIF else None
        return _Found(width, height, exif)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return _Found((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return _Found(width & 0x3FFF, height & 0x3FFF)
    raise _UnusableError("holds no pixels")


def _webp_exif(data: bytes) -> int | None:
    """Find the EXIF of a WebP. A chunk is a name (4 bytes), a length (4) and content, padded to be even."""
    position = 12
    for _ in range(MAX_PARTS):
        if position + 8 > len(data):
            return None
        kind, (length,) = data[position : position + 4], struct.unpack_from("<I", data, position + 4)
        position += 8
        if kind == b"EXIF":
            return position + len(_EXIF) * data.startswith(_EXIF, position)
        position += length + length % 2
    raise _UnusableError(f"has more than {MAX_PARTS:,} chunks")


_READERS: Final[dict[str, Callable[[bytes], _Found]]] = {
    "PNG": _png_size,
    "JPEG": _jpeg_size,
    "WEBP": _webp_size,
}
