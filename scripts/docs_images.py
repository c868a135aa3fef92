"""Draw the pictures of docs/how-it-works/ with the embedded model, from a sample photo.

Usage: python scripts/docs_images.py [--out docs/images] [--only NAME ...]

Each picture is what the code computes at one arrow. Those with portraits say in their metadata that they are generated.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from consistentid.faces.analysis import FaceAnalysis
from consistentid.faces.crops import Square, crop_square
from consistentid.faces.overlay import REGION_COLOURS, draw_analysis
from consistentid.faces.regions import LABEL_NAMES, REGION_NAMES
from consistentid.generation.attention_sheet import heat_over
from consistentid.generation.callbacks import StepReport
from consistentid.generation.explain import explain
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.loading import quiet_loading
from consistentid.generation.preview import decoded
from consistentid.generation.request import GenerationRequest
from consistentid.generation.settings import GenerationSettings
from consistentid.generation.versions import library_versions
from consistentid.identity.config import OFFICIAL_SD15
from consistentid.identity.reference import reference_images
from consistentid.trust.provenance import Label

ROOT = Path(__file__).parents[1]
PHOTO = ROOT / "examples" / "photos" / "synthetic-woman.jpg"
PROMPT = "a portrait photo of a smiling woman, blue background"
SEED = 3
_TILE = 150  # px
_GAP, _LINE = 6, 24
_FONT = ImageFont.load_default(size=16)
Row = Sequence[tuple[Image.Image, str]]


@dataclass(frozen=True)
class Picture:
    """What is drawn, and whether it shows something generated."""

    image: Image.Image
    generated: bool = False


class Illustrator:
    """The embedded model, and what it finds in the sample photo."""

    @cached_property
    def generator(self) -> PortraitGenerator:
        """Without a cache on the disk."""
        with quiet_loading():
            return PortraitGenerator.from_pretrained("embedded", offline=True, cache=False)

    @cached_property
    def analysis(self) -> FaceAnalysis:
        """Of the sample photo."""
        return self.generator.analysed(PHOTO).analysis

    def found(self) -> Picture:
        """Arrow 1: box, landmarks, label map."""
        labels = _palette()[self.analysis.label_map]
        photo = self.analysis.image
        tiles = [(photo, "photo"), (draw_analysis(self.analysis), "landmarks, regions")]
        return Picture(_rows([[*tiles, (Image.fromarray(labels), "label map")]], tile=240))

    def regions(self) -> Picture:
        """Arrow 1: the five regions."""
        photo = self.analysis.photo
        cut = {name: np.where(mask[..., None], photo, 0) for name, mask in self.analysis.region_masks.items()}
        tiles = [(self._around_face(pixels), name) for name, pixels in cut.items()]
        return Picture(_rows([[(self._around_face(photo), "photo"), *tiles]], tile=122))

    def facial_prompt(self) -> Picture:
        """Arrow 2: tokens, the marked words in the colours of their regions."""
        conditioner = self.generator.conditioner
        prompt = conditioner.facial_prompt(PROMPT, self.analysis, regions=REGION_NAMES)
        tokens = conditioner.tokenizers[0].convert_ids_to_tokens(prompt.ids[0].tolist())
        marked = dict(zip(prompt.positions, prompt.regions, strict=True))
        end = conditioner.tokenizers[0].eos_token
        used = tokens[: tokens.index(end) + 1]
        return Picture(_token_boxes([token.replace("</w>", "") for token in used], marked))

    def references(self) -> Picture:
        """Arrow 3: what the image encoder sees, in both modes."""
        rows = []
        for mode, quirks in (("aligned", self.generator.adapter.config.quirks), ("official", OFFICIAL_SD15)):
            images = reference_images(self.analysis, quirks)
            rows.append([(images.whole, f"{mode}: whole"), *((each, name) for name, each in images.regions.items())])
        return Picture(_rows(rows, tile=122))

    def fused_text(self) -> Picture:
        """Arrow 3: how far each token's embedding is moved by the region that is fused into it."""
        found = self.generator.conditioner.condition(self.analysis, PROMPT)
        moved = (found.prompt_embeds - found.unfused_embeds)[0].norm(dim=-1) / found.unfused_embeds[0].norm(dim=-1)
        marked = dict(zip(found.positions[0], found.regions[0], strict=True))
        return Picture(_bars(moved[: max(marked) + 2].tolist(), marked))

    def delayed_merge(self) -> Picture:
        """Arrow 4: predicted pictures of one seed, for several merge steps."""
        rows = [
            self._predictions(name, merge_step=step) for step, name in ((-1, "all"), (3, "from step 4"), (29, "none"))
        ]
        return Picture(_rows(rows), generated=True)

    def identity_scale(self) -> Picture:
        """Arrow 4: one seed, from the base model alone to too much of the adapter."""
        row = [(self._portrait(identity_scale=0, regions=()), "0, no regions")]
        row += [(self._portrait(identity_scale=scale), f"{scale:g}") for scale in (0.0, 0.5, 1.0, 1.5)]
        return Picture(_rows([row]), generated=True)

    def attention(self) -> Picture:
        """Arrow 4: which pixels each marked word was read by."""
        request = GenerationRequest(PHOTO, PROMPT, GenerationSettings(seed=SEED))
        (found,) = explain(self.generator, request)
        portrait = found.portrait.image.resize((_TILE, _TILE), Image.Resampling.BICUBIC)
        words = [
            (heat_over(portrait, each), name)
            for name, each in zip(found.tokens, found.mean, strict=True)
            if name in REGION_NAMES
        ]
        return Picture(_rows([[(portrait, "portrait"), *words]], tile=122), generated=True)

    def portraits(self) -> Picture:
        """Arrow 5: the photo and four portraits."""
        made = self.generator.generate(PHOTO, PROMPT, num_images=4, seed=SEED)
        drawn = [(each.image, f"seed {SEED + each.settings.index}") for each in made]
        return Picture(_rows([[(self._around_face(self.analysis.photo), "photo"), *drawn]]), generated=True)

    def training_batch(self) -> Picture:
        """Training: a record's target, its masks at latent resolution, and what a step does with it."""
        with tempfile.TemporaryDirectory() as folder:
            return _training_batch(Path(folder))

    def _around_face(self, pixels: np.ndarray) -> Image.Image:
        return crop_square(Image.fromarray(pixels), Square.around(self.analysis.box), _TILE)

    def _portrait(self, **settings: Any) -> Image.Image:
        return self.generator.generate(PHOTO, PROMPT, seed=SEED, **settings)[0].image

    def _predictions(self, name: str, *, merge_step: int) -> Row:
        """What the denoiser is heading for after some steps, and the portrait; `name` says where regions are read."""
        shown: list[tuple[Image.Image, str]] = []

        def keep(report: StepReport) -> None:
            if report.step in (2, 4, 8, 16):
                shown.append((decoded(self.generator.pipeline, report.predicted())[0], f"step {report.step}"))

        made = self.generator.generate(PHOTO, PROMPT, seed=SEED, merge_step=merge_step, callback=keep)
        return [*shown, (made[0].image, f"regions: {name}")]


@torch.no_grad()
def _training_batch(folder: Path) -> Picture:
    from consistentid.dataset.builder import build_dataset
    from consistentid.dataset.settings import BuildSettings
    from consistentid.training.adapter.config import AdapterTrainingConfig
    from consistentid.training.adapter.trainer import AdapterTrainer
    from consistentid.training.run import load_config
    from consistentid.training.step import noised

    build_dataset([PHOTO.parent], folder / "data", settings=BuildSettings())
    config = load_config(ROOT / "configs" / "embedded-adapter.yaml").model_copy(update={"dataset": folder / "data"})
    assert isinstance(config, AdapterTrainingConfig)
    trainer = AdapterTrainer(config)
    index = next(i for i, record in enumerate(trainer.dataset) if PHOTO.name in record.origin)
    target = trainer.photos.target(index, 0)
    latents = trainer.base.latents(target.content[None])
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    noisy = [(t, noised(trainer.base.scheduler, latents, torch.tensor([t]), noise)[0]) for t in (100, 500, 900)]
    top = [
        (_pixels(target.content), "target"),
        (_grey(target.foreground[0]), "person"),
        *((_grey(mask), name) for name, mask in zip(REGION_NAMES, target.regions, strict=True)),
    ]
    below = [(_autodecoded(trainer.base, latents), "latents")]
    below += [(_autodecoded(trainer.base, each), f"t = {t}") for t, each in noisy]
    return Picture(_rows([top, below], tile=104))


def _autodecoded(base: Any, latents: Tensor) -> Image.Image:
    pixels = base.vae.decode(latents / base.vae.config.scaling_factor, return_dict=False)[0][0]
    return _pixels(((pixels / 2 + 0.5).clamp(0, 1) * 255).round().byte())


def _pixels(content: Tensor) -> Image.Image:
    return Image.fromarray(content.permute(1, 2, 0).numpy())


def _grey(mask: Tensor) -> Image.Image:
    """A mask at its own resolution, enlarged without smoothing."""
    return Image.fromarray((mask * 255).byte().numpy()).resize((_TILE, _TILE), Image.Resampling.NEAREST)


def _palette() -> np.ndarray:
    """A colour for every class of a label map; black for the background."""
    hues = np.random.default_rng(4).permutation(len(LABEL_NAMES)) / len(LABEL_NAMES)
    colours = [Image.new("HSV", (1, 1), (int(255 * hue), 130, 235)).convert("RGB").getpixel((0, 0)) for hue in hues]
    return np.array([(0, 0, 0), *colours[1:]], np.uint8)


def _rows(rows: Sequence[Row], *, tile: int = _TILE) -> Image.Image:
    """Pictures side by side, each with its name below."""
    columns = max(len(row) for row in rows)
    sheet = Image.new("RGB", (columns * (tile + _GAP) - _GAP, len(rows) * (tile + _LINE + _GAP) - _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for r, row in enumerate(rows):
        for c, (picture, name) in enumerate(row):
            left, top = c * (tile + _GAP), r * (tile + _LINE + _GAP)
            scale = tile / max(picture.size)
            fitted = picture.convert("RGB").resize([max(1, round(scale * side)) for side in picture.size])
            sheet.paste(fitted, (left + (tile - fitted.width) // 2, top))
            draw.text((left + tile / 2, top + tile + _LINE / 2), name, fill="black", font=_FONT, anchor="mm")
    return sheet


def _token_boxes(tokens: Sequence[str], marked: dict[int, str], *, width: int = 760) -> Image.Image:
    """Tokens in reading order; a marked one has the colour of its region."""
    step, left, top = 30, _GAP, _GAP
    places = []
    for token in tokens:
        wide = round(_FONT.getlength(token)) + 12
        if left + wide > width:
            left, top = _GAP, top + step + _GAP
        places.append((left, top, left + wide, top + step))
        left += wide + 4
    image = Image.new("RGB", (width, top + step + _GAP), "white")
    draw = ImageDraw.Draw(image)
    for index, (token, box) in enumerate(zip(tokens, places, strict=True)):
        fill = REGION_COLOURS[marked[index]] if index in marked else (238, 238, 238)
        draw.rounded_rectangle(box, radius=5, fill=fill)
        draw.text(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), token, fill="black", font=_FONT, anchor="mm")
    return image


def _bars(values: Sequence[float], marked: dict[int, str], *, size: tuple[int, int] = (760, 190)) -> Image.Image:
    """A bar for every token position, those of regions in their colours."""
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    floor, step = size[1] - 24, (size[0] - 2 * _GAP) / len(values)
    unit = (floor - 48) / max(values)
    draw.line((_GAP, floor, size[0] - _GAP, floor), fill="black")
    for index, value in enumerate(values):
        left = _GAP + index * step
        if index in marked:
            draw.rectangle((left, floor - value * unit, left + step - 2, floor), fill=REGION_COLOURS[marked[index]])
            label = f"{marked[index]}\n{value:.0%}"
            place = (left + step / 2, floor - value * unit - 4)
            draw.multiline_text(place, label, fill="black", font=_FONT, anchor="md", align="center")
        if index % 5 == 0:
            draw.text((left + step / 2, floor + 12), str(index), fill="black", font=_FONT, anchor="mm")
    return image


def save(picture: Picture, path: Path) -> None:
    """As WebP; with the provenance of portraits where it shows some."""
    tool = f"consistentid {library_versions()['consistentid']}"
    options = {"xmp": Label(tool).xmp().encode()} if picture.generated else {}
    picture.image.save(path, "WEBP", quality=85, method=6, **options)


DRAWN: dict[str, Callable[[Illustrator], Picture]] = {
    "analysis": Illustrator.found,
    "regions": Illustrator.regions,
    "facial-prompt": Illustrator.facial_prompt,
    "references": Illustrator.references,
    "fused-text": Illustrator.fused_text,
    "delayed-merge": Illustrator.delayed_merge,
    "identity-scale": Illustrator.identity_scale,
    "attention": Illustrator.attention,
    "portrait": Illustrator.portraits,
    "training-batch": Illustrator.training_batch,
}


def main() -> None:
    """Draw all pictures, or some."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--only", nargs="+", choices=DRAWN, default=list(DRAWN))
    options = parser.parse_args()
    illustrator = Illustrator()
    for name in options.only:
        path = options.out / f"{name}.webp"
        save(DRAWN[name](illustrator), path)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
