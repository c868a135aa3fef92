"""The layout of the released FGID: a JSON list whose objects name photo, label map, captions and embedding."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from consistentid.dataset.sources.files import FileItem, missing_file
from consistentid.dataset.sources.item import About
from consistentid.errors import InvalidData

PHOTO = "resize_IMG"
LABEL_MAP = "parsing_mask_IMG"
CAPTION = "vqa_llva"
FACIAL_CAPTIONS = ("vqa_llva_more_face_detail", "vqa_llva_face_caption")
EMBEDDINGS = ("id_embed_file_resize", "id_embed_file_origin")
_FOLDERS = {  # of the release's scripts, beside the list; files may also lie beside it themselves
    PHOTO: ("FGID_resize", PHOTO),
    LABEL_MAP: ("FGID_parsing_mask", LABEL_MAP),
    **dict.fromkeys(EMBEDDINGS, ("FGID_faceID", "FGID_faceid")),
}


def release_items(path: Path) -> Iterator[FileItem]:
    """Items of the list in its order; captions and label maps are taken over.

    Embeddings are taken over when they are as long as the recogniser's; all others are computed again.

    Raises:
        InvalidData: the file is no such list.
    """
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(listed, list) or not all(PHOTO in each for each in listed):
            raise TypeError
    except (ValueError, TypeError) as error:
        raise InvalidData(f"{path} must be a JSON list of objects with {PHOTO!r}, as in the released FGID") from error
    for each in listed:
        photo = _find(path.parent, each, PHOTO)
        about = _about(each)
        if photo is None:
            yield missing_file(path.parent / each[PHOTO], path.stem, about)
            continue
        embeddings = (_find(path.parent, each, key) for key in EMBEDDINGS)
        yield FileItem(
            source=path.stem,
            origin=each[PHOTO],
            path=photo,
            size=photo.stat().st_size,
            about=about,
            label_map=_find(path.parent, each, LABEL_MAP),
            identity_embedding=next((found for found in embeddings if found), None),
        )


def _about(each: Mapping[str, Any]) -> About:
    facial = next((each[key] for key in FACIAL_CAPTIONS if each.get(key)), None)
    return About.of({**each, "caption": each.get(CAPTION), "facial_caption": facial})


def _find(root: Path, each: Mapping[str, Any], key: str) -> Path | None:
    name = each.get(key)
    if not name:
        return None
    candidates = (root / folder / name for folder in (*_FOLDERS[key], "."))
    return next((path for path in candidates if path.is_file()), None)
