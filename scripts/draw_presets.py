"""Draw the pictures of the web app's presets: the sample photo, each preset's prompt, the embedded model."""

from consistentid.generation.generator import PortraitGenerator
from consistentid.web.ui.presets import presets

SEED = 11


def main() -> None:
    """Write every picture to its place in the package."""
    generator = PortraitGenerator.from_pretrained("embedded", offline=True, cache=False)
    for preset in presets():
        portrait = generator.generate("examples/photos/synthetic-woman.jpg", preset.prompt, seed=SEED)[0]
        portrait.image.save(preset.path, quality=90)


if __name__ == "__main__":
    main()
