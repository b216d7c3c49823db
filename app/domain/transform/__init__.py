"""Changes of a given image that need no model: what may be asked, and what comes of it.

Pure; `app.imaging.transform` does them.
"""

from app.domain.transform.kinds import (
    MAX_RESULT_SIDE,
    MAX_WATERMARKS,
    Blur,
    Convert,
    Crop,
    Import,
    Mark,
    Mirror,
    Modulate,
    Position,
    RemoveBackground,
    Resize,
    Rotate,
    Transform,
    Watermark,
)
from app.domain.transform.rules import (
    MAX_RESULT_PIXELS,
    mark_size,
    problems_with,
    result_format,
    result_size,
    scaled,
)

__all__ = [
    "MAX_RESULT_PIXELS",
    "MAX_RESULT_SIDE",
    "MAX_WATERMARKS",
    "Blur",
    "Convert",
    "Crop",
    "Import",
    "Mark",
    "Mirror",
    "Modulate",
    "Position",
    "RemoveBackground",
    "Resize",
    "Rotate",
    "Transform",
    "Watermark",
    "mark_size",
    "problems_with",
    "result_format",
    "result_size",
    "scaled",
]
