from consistentid.generation.generator import PortraitGenerator

generator = PortraitGenerator.from_pretrained("embedded")
portraits = generator.generate(
    "examples/photos/synthetic-woman.jpg",
    "a portrait photo of a smiling woman, blue background",
    num_images=4,
    seed=0,
)
for index, portrait in enumerate(portraits):
    portrait.save(f"out/portrait_{index}.png")
