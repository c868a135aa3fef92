"""How fresh layers and the warm-up make the tokens of identity and regions differ between people."""

from dataclasses import replace

import torch
from transformers import CLIPTokenizer

from consistentid.identity.dlib_image_encoder import DlibImageEncoder
from consistentid.training.embedded.config import AdapterSizes
from consistentid.training.embedded.diffusion import new_models
from consistentid.training.embedded.initialise import awaken, standardise_inputs
from consistentid.training.embedded.sampler import StoreSampler
from consistentid.training.embedded.token_warmup import TokenTask
from consistentid.training.identity_prior import IdentityPrior
from consistentid.training.prediction import TrainingModels
from consistentid.training.share import Share


def test_people_get_different_tokens_after_standardising(
    models: TrainingModels, sampler: StoreSampler, prior: IdentityPrior
) -> None:
    references = sampler.references
    identity, whole = references.identity[:, 0], references.whole[:, 0].float()

    def spread() -> float:
        with torch.no_grad():
            return float(models.adapter.identity_tokens(identity, whole).std(0).mean())

    before = spread()
    standardise_inputs(models, references, prior)
    assert spread() > 3 * before


def test_awake_region_tokens_differ_as_much_as_words(tokenizer: CLIPTokenizer, sampler: StoreSampler) -> None:
    torch.manual_seed(0)
    encoder = new_models(tokenizer, AdapterSizes(), encoder=DlibImageEncoder()).adapter.facial_encoder
    people = 0.05 * torch.randn(30, 1, 1, 1, 448)  # features differ more between regions, and places, than people
    regions = torch.randn(1, 1, 5, 1, 448) + torch.randn(1, 1, 1, 64, 448) + people
    references = replace(sampler.references, regions=regions, present=torch.ones(30, 1, 5, dtype=torch.bool))

    def spread() -> float:
        word = torch.randn(256, generator=torch.Generator().manual_seed(0)).expand(len(regions), -1)
        with torch.no_grad():
            fused = encoder.fuse_module(word, encoder.region_tokens(regions[:, 0, 2]))
        return float((fused - fused.mean(0)).norm(dim=1).mean() / fused.norm(dim=1).mean())

    before = spread()
    awaken(encoder, references)
    assert before < 0.1
    assert spread() > 0.4


def test_region_tokens_learn_to_say_what_identity_tokens_say(
    tokenizer: CLIPTokenizer, sampler: StoreSampler, prior: IdentityPrior
) -> None:
    torch.manual_seed(0)
    models = new_models(tokenizer, AdapterSizes(), encoder=DlibImageEncoder())
    sampler = replace(sampler, without_caption=0)
    standardise_inputs(models, sampler.references, prior)
    task = TokenTask(models, sampler, batch_size=6)
    optimizer = torch.optim.Adam(task.modules["facial_encoder"].parameters(), lr=1e-3)
    told: dict[str, list[float]] = {"face": [], "look": []}
    for step in range(12):
        losses = task.losses(Share(0, step))
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        for name, values in told.items():
            values.append(float(losses[name].detach()))
    assert told["face"][-1] < 0.8 * told["face"][0]
    assert told["look"][-1] < told["look"][0]
