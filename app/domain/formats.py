"""How an image is encoded."""

from enum import StrEnum


class ImageFormat(StrEnum):
    """How an output is encoded."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"

    @property
    def extension(self) -> str:
        """File name extension without the dot."""
        return "jpg" if self is ImageFormat.JPEG else self.value

    @property
    def media_type(self) -> str:
        """Content-Type of the encoded bytes."""
        return f"image/{self.value}"

    @property
    def has_alpha(self) -> bool:
        """Whether it can hold transparent parts."""
        return self is not ImageFormat.JPEG
