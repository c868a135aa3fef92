"""Stage 1: the autoencoder, 128 px photos <-> 16 x 16 latents of 8 channels."""

from dataclasses import dataclass
from functools import cached_property

import torch
from diffusers import AutoencoderTiny
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from consistentid.faces.crops import mirror_landmarks
from consistentid.faces.dlib_resnet import DlibFaceResNet
from consistentid.training.face_chips import aligned_chips
from consistentid.training.share import Share

_WIDTH = 64
_FEATURE_BLOCKS = (2, 6, 9)  # the recogniser's last blocks of 32, 64 and 128 channels


def new_autoencoder() -> AutoencoderTiny:
    """An untrained f8 autoencoder: plain 3 x 3 convolutions and ReLU; no residual block at full resolution."""
    return AutoencoderTiny(
        encoder_block_out_channels=(_WIDTH,) * 4,
        decoder_block_out_channels=(_WIDTH,) * 4,
        num_encoder_blocks=(0, 1, 3, 4),
        num_decoder_blocks=(4, 3, 1, 0),
        latent_channels=8,
        scaling_factor=1.0,
    )


class FeatureDistance(nn.Module):
    """Perceptual distance on the face recogniser's early feature maps, each normalised over channels (as in LPIPS)."""

    def __init__(self, recogniser: DlibFaceResNet, *, size: int = 192) -> None:
        super().__init__()
        self.recogniser = recogniser
        self.size = size

    def forward(self, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]) -> Tensor:
        """Mean distance of two batches of images in -1..1."""
        with torch.no_grad():
            target = self._maps(b)
        distances = [(x - y).square().sum(1).mean() for x, y in zip(self._maps(a), target, strict=True)]
        return torch.stack(distances).mean()

    def _maps(self, images: Tensor) -> list[Tensor]:
        resized = F.interpolate(images.float() / 2 + 0.5, size=(self.size, self.size), mode="bilinear")
        maps = self.recogniser.features(resized, last=_FEATURE_BLOCKS[-1])
        return [F.normalize(maps[index].float(), dim=1) for index in _FEATURE_BLOCKS]


@dataclass
class AutoencoderTask:
    """Reconstruction with L1, the perceptual distance, and noise on the latents, so that nearby latents decode alike.

    Nothing that is drawn later can be recognised better than a reconstruction: without the recogniser's opinion, the
    distance of held-out people to their other photo rose from 0.33 to 0.52 by encoding and decoding alone.

    Attributes:
        photos: (n, s, s, 3) crops larger than the model's size: each use cuts out a random square.
        landmarks: (n, 5, 2) of the faces, in pixels of `photos`.
        identity_weight: of the squared distance between the recogniser's embeddings of photo and reconstruction.
    """

    autoencoder: AutoencoderTiny
    photos: UInt8[Tensor, "n s s 3"]
    landmarks: Float[Tensor, "n 5 2"]
    recogniser: DlibFaceResNet
    size: int = 128
    batch_size: int = 16
    feature_weight: float = 0.25
    identity_weight: float = 0.5
    latent_noise: float = 0.05

    @property
    def modules(self) -> dict[str, nn.Module]:
        """See `Task.modules`."""
        return {"autoencoder": self.autoencoder}

    @cached_property
    def _distance(self) -> FeatureDistance:
        return FeatureDistance(self.recogniser)

    def losses(self, share: Share) -> dict[str, Tensor]:
        """See `Task.losses`."""
        generator = share.generator()
        images, landmarks = random_squares(self.photos, self.landmarks, self.batch_size, self.size, generator)
        latents = self.autoencoder.encode(images).latents
        noise = torch.randn(latents.shape, generator=generator)
        decoded = self.autoencoder.decode(latents + self.latent_noise * noise).sample.float()
        pixels = (decoded - images).abs().mean()
        edges = (edges_of(decoded) - edges_of(images)).abs().mean()
        features = self._distance(decoded, images)
        identity = identity_distance(self.recogniser, decoded, images, landmarks, generator)
        # Unit variance without a KL term: the diffusion model needs it, the decoder bounds latents at 3.
        moments = latents.float().mean((0, 2, 3)).square().mean()
        moments = moments + (latents.float().std((0, 2, 3)) - 1).square().mean()
        loss = pixels + edges + self.feature_weight * features + 0.1 * moments + self.identity_weight * identity
        parts = {"l1": pixels, "edges": edges, "features": features, "moments": moments, "identity": identity}
        return {"loss": loss, **parts}


def identity_distance(
    recogniser: DlibFaceResNet,
    decoded: Float[Tensor, "b 3 s s"],
    images: Float[Tensor, "b 3 s s"],
    landmarks: Float[Tensor, "b 5 2"],
    generator: torch.Generator,
) -> Tensor:
    """Mean squared distance of the embeddings of faces, cut out alike of pictures in -1..1 and of what they show."""
    pairs = torch.cat([decoded, images], dim=1) / 2 + 0.5  # as channels
    jitter = torch.randn(len(pairs), 3, generator=generator)
    chips, wanted = aligned_chips(pairs, landmarks, jitter).clamp(0, 1).split(3, dim=1)
    with torch.no_grad():
        target = recogniser(wanted)
    return (recogniser(chips).float() - target.float()).square().sum(1).mean()


def random_squares(
    photos: UInt8[Tensor, "n s s 3"],
    landmarks: Float[Tensor, "n 5 2"],
    count: int,
    size: int,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "b 3 size size"], Float[Tensor, "b 5 2"]]:
    """Random squares of random photos in -1..1, mirrored half of the time, and where the landmarks are in them."""
    indices = torch.randint(len(photos), (count,), generator=generator)
    whole = photos.shape[1]
    images, points = [], []
    for index in indices:
        side = int(torch.randint(round(0.6 * whole), whole + 1, (1,), generator=generator))
        top, left = (int(torch.randint(whole - side + 1, (1,), generator=generator)) for _ in range(2))
        image = photos[index, top : top + side, left : left + side].permute(2, 0, 1)[None].float() / 127.5 - 1
        image = F.interpolate(image, size=(size, size), mode="bilinear", antialias=True)
        point = (landmarks[index] - torch.tensor([left, top])) * (size / side)
        if torch.rand((), generator=generator) < 0.5:
            image, point = image.flip(3), torch.from_numpy(mirror_landmarks(point.numpy(), size))
        images.append(image)
        points.append(point)
    return torch.cat(images).contiguous(memory_format=torch.channels_last), torch.stack(points)


def edges_of(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """What is left of pictures without their means over 3 x 3 pixels."""
    return images - F.avg_pool2d(images, 3, 1, 1)


@torch.no_grad()
def peak_signal_to_noise(autoencoder: AutoencoderTiny, images: Float[Tensor, "n 3 h w"]) -> float:
    """PSNR in dB of the reconstruction of images in -1..1."""
    decoded = autoencoder.decode(autoencoder.encode(images).latents).sample.clamp(-1, 1)
    return float(10 * torch.log10(4 / (decoded - images).square().mean()))
