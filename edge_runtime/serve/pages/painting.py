"""What viewers are shown, in pixels: a picture at another size, a heat map in colours."""

from __future__ import annotations

import cv2
import numpy as np
import simplejpeg

from edge_runtime.media.picture import PictureError, decode_picture

QUALITY = 85
HEAT_WIDTH = 320  # a heat map has 40 columns; smoothed to this it looks like one
HEAT_FROM, HEAT_ALPHA = 0.12, 0.65  # below is the model's noise; the part must be seen through it


def scaled(content: bytes, width: int) -> bytes:
    """A picture file as a JPEG at most so wide. Raises PictureError."""
    image = decode_picture(content)
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    if width < image.shape[1]:
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    pixels = np.ascontiguousarray(image)
    return bytes(simplejpeg.encode_jpeg(pixels, quality=QUALITY, colorspace="RGB", colorsubsampling="420"))


def painted_heat(content: bytes) -> bytes:
    """The grey PNG of a heat map as one with alpha in the colours of heat, transparent where the model saw nothing."""
    grey = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise PictureError("the heat map cannot be decoded")
    size = (HEAT_WIDTH, max(1, round(grey.shape[0] * HEAT_WIDTH / grey.shape[1])))
    smooth = np.clip(cv2.resize(np.asarray(grey, np.float32) / 255.0, size, interpolation=cv2.INTER_CUBIC), 0.0, 1.0)
    colours = cv2.applyColorMap(np.rint(smooth * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    alpha = np.clip((smooth - HEAT_FROM) / (1.0 - HEAT_FROM) * 2.0, 0.0, 1.0) * HEAT_ALPHA
    painted = np.dstack([colours, np.rint(alpha * 255).astype(np.uint8)])
    return bytes(cv2.imencode(".png", painted)[1].tobytes())
