"""Is a photo good enough to learn from: numbers measured on the face, and rules with limits for them."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from consistentid.dataset.record import Quality
from consistentid.faces.detection import DetectedFace
from consistentid.faces.regions import region_masks

_FACE_SIDE = 128  # px; every face is measured at this size, so that sharpness means the same for all photos
_BLACK, _WHITE = 3, 252  # channels up to and from here count as clipped


def measure(
    photo: UInt8[np.ndarray, "h w 3"],
    face: DetectedFace,
    label_map: UInt8[np.ndarray, "h w"],
    *,
    faces: int,
) -> Quality:
    """Measure a photo by one of its faces.

    Brightness and clipping count the pixels of the face in the label map, and the whole face box where it shows none.

    Args:
        photo: upright RGB.
        face: the face that counts.
        label_map: classes of `regions.LABEL_NAMES`.
        faces: how many faces were found.
    """
    left, top = (max(0, round(value)) for value in face.box[:2])
    inside = (slice(top, max(top + 1, round(face.box[3]))), slice(left, max(left + 1, round(face.box[2]))))
    box = photo[inside]
    mask = region_masks(label_map[inside]).get("face")
    pixels = box.reshape(-1, 3) if mask is None else box[mask]
    clipped = (pixels.max(1) <= _BLACK) | (pixels.min(1) >= _WHITE)
    yaw, roll = _pose(face)
    return Quality(
        faces=faces,
        face_px=face.box[2] - face.box[0],
        sharpness=_sharpness(box),
        brightness=float(pixels.mean() / 255),
        clipped=float(clipped.mean()),
        yaw=yaw,
        roll=roll,
    )


def _sharpness(box: np.ndarray) -> float:
    """Variance of the Laplacian of the grey face at one size."""
    import cv2

    grey = Image.fromarray(box).convert("L").resize((_FACE_SIDE, _FACE_SIDE), Image.Resampling.BICUBIC)
    return float(cv2.Laplacian(np.asarray(grey, np.float32), cv2.CV_32F).var())


def _pose(face: DetectedFace) -> tuple[float, float]:
    """Yaw: the nose's offset along the line of the eyes, in half eye distances; and the angle of that line."""
    left, right, nose = (face.landmarks[index].astype(np.float64) for index in range(3))
    across = right - left
    offset = (nose - (left + right) / 2) @ across / max(float(across @ across), 1.0)
    return float(2 * offset), float(np.degrees(np.arctan2(across[1], across[0])))


class Rules(BaseModel):
    """When a photo is left out of a dataset.

    The defaults refuse what is clearly bad. They were chosen by looking at 604 good portraits, whose extreme values the
    descriptions give, and at blurred copies of them. Dark skin measures 0.22 at the least, so that a limit for the
    brightness must stay far below it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_faces: int = Field(default=1, ge=1, description="several_faces: more faces than this")
    min_side: int = Field(default=128, ge=1, description="small_photo: the photo's shorter side is below this, px")
    min_face: float = Field(default=64, ge=0, description="small_face: the face box is narrower than this, px")
    min_sharpness: float = Field(
        default=15, ge=0, description="blurred: good faces above 64 px have 75 and more, a blur of 1.5 % of the face 11"
    )
    min_brightness: float = Field(default=0.08, ge=0, le=1, description="dark: good faces have 0.22 and more")
    max_brightness: float = Field(default=0.92, ge=0, le=1, description="bright: good faces have 0.72 and less")
    max_clipped: float = Field(default=0.25, ge=0, le=1, description="clipped: good faces have 0.02 and less")
    max_yaw: float = Field(default=1.2, ge=0, description="turned: good faces have 1.04 and less")
    max_roll: float = Field(default=45, ge=0, le=180, description="tilted: degrees; good faces have 23 and less")

    def reasons(self, quality: Quality, *, width: int, height: int) -> list[str]:
        """Names of the rules that a photo of so many pixels breaks; `RULE_NAMES` has all of them."""
        broken = {
            "several_faces": quality.faces > self.max_faces,
            "small_photo": min(width, height) < self.min_side,
            "small_face": quality.face_px < self.min_face,
            "blurred": quality.sharpness < self.min_sharpness,
            "dark": quality.brightness < self.min_brightness,
            "bright": quality.brightness > self.max_brightness,
            "clipped": quality.clipped > self.max_clipped,
            "turned": abs(quality.yaw) > self.max_yaw,
            "tilted": abs(quality.roll) > self.max_roll,
        }
        return [name for name, is_broken in broken.items() if is_broken]


RULE_NAMES = tuple(str(field.description).partition(":")[0] for field in Rules.model_fields.values())
