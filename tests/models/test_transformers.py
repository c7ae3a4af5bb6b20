"""ViT, Swin and ConvNeXt on random weights: the same split, the same methods, and what a ViT attends to."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch.nn import functional as F

import explainers
import models
from explainers import METHODS, Look, lacks
from models import store
from models.base import Attends, Target
from models.classifier import Classifier, zoo_net
from models.transformers import _tokens

NAMES = ["vit_b_16", "swin_t", "convnext_tiny"]
SHAPES = {"vit_b_16": (768, 14, 14), "swin_t": (768, 7, 7), "convnext_tiny": (768, 7, 7)}
QUICK: dict[str, dict[str, Any]] = {
    "grad_cam": {}, "layer_cam": {}, "eigen_cam": {}, "saliency": {}, "input_x_gradient": {},
    "integrated_gradients": {"steps": 5}, "occlusion": {"window": 0.5, "stride": 0.5}, "rise": {"masks": 20}}


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest) -> Classifier:
    torch.manual_seed(0)
    return zoo_net(request.param, weights=False)


@pytest.fixture(scope="module")
def vit() -> Classifier:
    torch.manual_seed(0)
    return zoo_net("vit_b_16", weights=False)


def normalised(x: torch.Tensor) -> torch.Tensor:
    return torchvision.transforms.functional.normalize(x, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def test_the_split_net_is_the_plain_net(model: Classifier) -> None:
    x = torch.rand(2, 3, 224, 224, device=model._shift.device)
    with torch.no_grad():
        features = model.encode(x)
        plain = model.net(normalised(x))
        for got, expected in ((model.logits(features), plain),
                              (model.score(features, Target(index=7)), plain[:, 7]),
                              (model.score(features, Target(index=7, versus=9)), plain[:, 7] - plain[:, 9]),
                              (model.probability(features, Target(index=7)), plain.softmax(1)[:, 7])):
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert plain.std() > 1e-3, "nets that say nothing prove nothing"
    assert [tuple(m.shape[1:]) for m in features.maps] == [SHAPES[model.info.name]]
    assert [tuple(r.shape) for r in features.rest] == ([(2, 1, 768)] if model.info.name == "vit_b_16" else [])


def test_they_are_shown_what_torchvision_would_show_them(model: Classifier) -> None:
    seen = torchvision.models.get_model_weights(model.info.name).DEFAULT.transforms()
    canvas = model.prepare(np.zeros((464, 500, 3), np.uint8))
    assert canvas.size == (seen.crop_size[0],) * 2
    assert canvas.scale[0] == pytest.approx(seen.resize_size[0] / 464, rel=0.01)
    assert (model._mean, model._deviation) == (tuple(seen.mean), tuple(seen.std))


@pytest.mark.parametrize("name", sorted(store.ASSETS.keys() & set(torchvision.models.list_models())))
def test_their_weights_are_asked_for_at_torchvisions_own_address(name: str) -> None:
    (source,) = store.find(name).sources
    assert str(source) == torchvision.models.get_model_weights(name).DEFAULT.url
    assert models.catalog()[name].assets == (name,)


@pytest.mark.parametrize("name", QUICK)
def test_maps_gradients_and_perturbation_work_on_all(model: Classifier, name: str, photographs) -> None:
    look = Look(model, photographs["cat"])
    e = explained(look, name)
    assert e.heat.shape == (224, 224) and np.isfinite(e.heat).all() and e.heat.std() > 0
    assert not any(t.requires_grad for t in look.features.tensors)


def explained(look: Look, name: str) -> explainers.Explanation:
    best = Target(index=look.prediction.classes[0].index)
    *_, last = explainers.steps(look, name, best, QUICK.get(name, {}))
    return last


def test_grad_cam_of_a_vit_hangs_on_every_patch(vit: Classifier, photographs) -> None:
    """Split a block later, no gradient would reach the patches at all."""
    look = Look(vit, photographs["cat"])
    (gradient,), _ = look.feature_gradients(Target(index=3))
    assert (gradient.abs().amax(1) > 0).all()


def test_a_vit_attends_as_its_layers_do(vit: Classifier) -> None:
    """Rows sum to one, and these weights, taken by hand, give what each layer gives."""
    assert isinstance(vit, Attends)
    x, net = torch.rand(2, 3, 224, 224, device=vit._shift.device), vit.net  # type: torch.Tensor, Any
    with torch.no_grad():
        weights = vit.attention(x)
        assert len(weights) == 12 and all(w.shape == (2, 12, 197, 197) for w in weights)
        tokens = _tokens(net, normalised(x))
        for block, shares in zip(net.encoder.layers, weights, strict=True):
            entered, tokens = tokens, block(tokens)
            torch.testing.assert_close(shares.sum(-1), torch.ones_like(shares[..., 0]), rtol=0, atol=1e-5)
            torch.testing.assert_close(by_hand(block, entered, shares), tokens, rtol=1e-4, atol=1e-4)


def by_hand(block: Any, tokens: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """What an encoder block makes of its tokens, NxTxC, if its heads' attention is NxHxTxT."""
    held, third = block.self_attention, tokens.shape[-1]
    values = F.linear(block.ln_1(tokens), held.in_proj_weight[-third:], held.in_proj_bias[-third:])
    gathered = shares @ values.unflatten(2, (shares.shape[1], -1)).transpose(1, 2)
    tokens = tokens + held.out_proj(gathered.transpose(1, 2).flatten(2))
    return tokens + block.mlp(block.ln_2(tokens))


def test_only_the_vit_offers_attention(model: Classifier) -> None:
    sentence = lacks(METHODS["attention_rollout"], model)
    assert (sentence is None) == ("attention" in model.offers) == (model.info.name == "vit_b_16")
    assert sentence is None or f"{model.info.title} has no attention" in sentence


def test_rollout_is_one_map_for_every_class(vit: Classifier, photographs) -> None:
    look = Look(vit, photographs["cat"])
    e = explained(look, "attention_rollout")
    assert e.heat.shape == (224, 224) and 0 < e.heat.min() < e.heat.max() < 1
    again = explained(Look(vit.randomised(0.01, 0), photographs["cat"]), "attention_rollout")
    np.testing.assert_allclose(again.heat, e.heat, atol=1e-6)       # another head, the same attention


def test_a_redrawn_vit_is_a_vit(vit: Classifier) -> None:
    other = vit.randomised(1.0, 1)
    assert type(other) is type(vit) and other.offers == vit.offers
    drawn_anew = dict(other.net.named_parameters())
    kept = {name for name, was in vit.net.named_parameters() if torch.equal(was, drawn_anew[name])}
    assert not [name for name in kept if name.endswith("weight") and "ln" not in name], "attention included"
