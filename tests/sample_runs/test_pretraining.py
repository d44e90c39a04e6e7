"""The recipes: losses with known values, augmentation that does what it says, a few steps that move the weights."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pretrain
import pytest
import torch
from pretraining import self_supervised
from pretraining.augment import jitter, random_crops, recolour
from pretraining.captions import END, WORDS, tokenise
from pretraining.corpus import Corpus, render_corpus
from pretraining.image_text import MAX_LOGIT_SCALE, ImageText
from pretraining.recipe import Batch, Settings, learning_rate, train
from pretraining.self_supervised import (
    STUDENT_TEMPERATURE,
    TEACHER_TEMPERATURE,
    SelfSupervised,
    distillation_loss,
    spreading_loss,
)
from pretraining.supervised import Supervised, classification_loss

from engine.backbones import initialise, load_backbone
from engine.backbones.bundled import BUNDLED, CONTEXT_LENGTH, VOCABULARY_SIZE, build
from engine.data.synthetic.scenes import CLASSES, IMAGES_A_DATASET, PRETRAINING_SEEDS, image_seed, scene

N_CORPUS = 96
SETTINGS = Settings(n_steps=8, batch_size=16, learning_rate=1e-3)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return render_corpus(tmp_path_factory.mktemp("corpus"), N_CORPUS, seed=0, n_processes=1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Losses


def test_cross_entropy_has_its_known_value() -> None:
    """Logits (ln 3, 0) give probabilities 3/4 and 1/4; 0.95 of the smoothed target lies on the first class."""
    loss = classification_loss(torch.tensor([[math.log(3), 0.0]]), torch.tensor([0]))
    assert loss.item() == pytest.approx(-(0.95 * math.log(0.75) + 0.05 * math.log(0.25)))


def test_contrastive_loss_has_its_known_value() -> None:
    recipe = ImageText(SETTINGS)
    images, texts = torch.eye(2), torch.eye(2)
    loss = recipe.contrast(images, texts, torch.tensor(2.0))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2.0)))


def test_distillation_is_cross_entropy_of_other_views_only() -> None:
    teacher = torch.tensor([[0.08, 0.0]]), torch.tensor([[0.0, 0.0]])
    student = torch.tensor([[0.1, 0.0]]), torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 0.3]])
    loss = distillation_loss(student, teacher, torch.zeros(1, 2)).item()
    guesses = [torch.log_softmax(view / STUDENT_TEMPERATURE, dim=1)[0] for view in student]
    targets = [torch.softmax(view / TEACHER_TEMPERATURE, dim=1)[0] for view in teacher]
    pairs = [(0, 1), (0, 2), (1, 0), (1, 2)]
    assert loss == pytest.approx(np.mean([-(targets[i] @ guesses[j]).item() for i, j in pairs]))
    assert targets[0][0].item() == pytest.approx(math.exp(2) / (1 + math.exp(2)))  # sharpened: 0.08 / 0.04 = 2


def test_centring_takes_away_what_all_images_share() -> None:
    shared = torch.tensor([[5.0, 0.0, -3.0]])
    teacher, student = (torch.randn(4, 3, generator=generator(seed)) for seed in (1, 2))
    plain = distillation_loss((student, student), (teacher, teacher), torch.zeros(1, 3))
    centred = distillation_loss((student, student), (teacher + shared, teacher + shared), shared)
    assert centred.item() == pytest.approx(plain.item(), rel=1e-4)


def test_spreading_is_the_log_distance_to_the_nearest_and_drives_it_apart() -> None:
    corner = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-2.0, 0.0]])  # each √2 from its nearest, at any length
    assert spreading_loss(corner).item() == pytest.approx(-math.log(2) / 2)
    close = torch.tensor([[1.0, 0.01], [1.0, -0.01], [-1.0, 0.0]], requires_grad=True)
    loss = spreading_loss(close)
    loss.backward()
    moved = close.detach() - 1e-5 * close.grad
    assert spreading_loss(moved) < loss
    assert torch.isfinite(spreading_loss(torch.ones(3, 2)))


def test_the_teacher_is_a_running_mean_of_the_student_and_is_what_is_saved() -> None:
    recipe = SelfSupervised(SETTINGS)
    before = copy.deepcopy(recipe.teacher.state_dict())
    with torch.no_grad():
        for parameter in recipe.trained.parameters():
            parameter += 1
    recipe.after_step(0.0)
    key = "0.blocks.0.attn.qkv.weight"
    torch.testing.assert_close(recipe.teacher.state_dict()[key], before[key] + 1 - self_supervised.TEACHER_MOMENTUM)
    recipe.after_step(1.0)  # the momentum has risen to 1: nothing moves any more
    torch.testing.assert_close(recipe.teacher.state_dict()[key], before[key] + 1 - self_supervised.TEACHER_MOMENTUM)
    assert recipe.backbone is recipe.teacher.get_submodule("0")
    assert not any(parameter.requires_grad for parameter in recipe.backbone.parameters())


def test_the_centre_follows_the_teacher(corpus: Corpus) -> None:
    recipe = SelfSupervised(SETTINGS)
    recipe.loss(batch_of(corpus), generator())
    assert recipe.centre.shape == (1, self_supervised.N_PROTOTYPES) and recipe.centre.abs().sum() > 0


def test_the_logit_scale_stays_below_its_bound() -> None:
    recipe = ImageText(SETTINGS)
    scale = recipe.trained.get_parameter("logit_scale")
    with torch.no_grad():
        scale.fill_(9.0)
    recipe.after_step(0.5)
    assert scale.item() == pytest.approx(MAX_LOGIT_SCALE)


# Training


def batch_of(corpus: Corpus, n: int = 16) -> Batch:
    images = torch.from_numpy(corpus.pixels[:n].copy()).permute(0, 3, 1, 2).float() / 255
    return Batch(images, torch.from_numpy(corpus.labels[:n]), list(corpus.captions[:n]))


@pytest.mark.parametrize("name", BUNDLED)
def test_steps_move_all_weights_the_same_way_for_the_same_seed(name: str, corpus: Corpus) -> None:
    def trained(seed: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        torch.manual_seed(seed)
        recipe = pretrain.RECIPES[name][0](Settings(n_steps=2, batch_size=8, learning_rate=1e-3, seed=seed))
        before = copy.deepcopy(recipe.backbone.state_dict())
        train(recipe, corpus)
        return before, recipe.backbone.state_dict()

    before, after = trained(0)
    assert set(after) == set(build(name).state_dict())
    moved = [not torch.equal(before[key], after[key]) for key in after]
    assert np.mean(moved) > 0.95
    again = trained(0)[1]
    assert all(torch.equal(after[key], again[key]) for key in after)
    assert any(not torch.equal(after[key], other) for key, other in trained(1)[1].items())


@pytest.mark.parametrize("make", [Supervised, ImageText], ids=["supervised", "image-text"])
def test_steps_lower_the_loss(make: type[Supervised] | type[ImageText], corpus: Corpus) -> None:
    torch.manual_seed(0)
    recipe = make(Settings(n_steps=24, batch_size=16, learning_rate=2e-3))
    losses: list[float] = []
    few = Corpus(corpus.pixels[:24], corpus.labels[:24], corpus.captions[:24])
    train(recipe, few, lambda *seen: losses.append(seen[1]))
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.1


def test_a_student_follows_a_teacher_that_stands_still(corpus: Corpus) -> None:
    """In training the target moves, so the loss need not fall; on one batch and with one teacher it must."""
    torch.manual_seed(0)
    recipe = SelfSupervised(SETTINGS)
    images = torch.from_numpy(corpus.pixels[:8].copy()).permute(0, 3, 1, 2).float() / 255
    batch = Batch(images, torch.from_numpy(corpus.labels[:8]), [])
    optimiser = torch.optim.AdamW(recipe.trained.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        recipe.centre = torch.zeros_like(recipe.centre)
        loss = recipe.loss(batch, generator(1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3


def test_a_loss_that_is_not_finite_stops_the_training(corpus: Corpus) -> None:
    recipe = Supervised(SETTINGS)
    with torch.no_grad():
        next(recipe.trained.parameters()).fill_(math.nan)
    with pytest.raises(FloatingPointError, match="step 0: loss is nan"):
        train(recipe, corpus)


def test_the_learning_rate_warms_up_and_falls() -> None:
    settings = Settings(n_steps=100, batch_size=1, learning_rate=1.0, warmup=0.1)
    rates = [learning_rate(settings, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[10] == 1.0
    assert rates == sorted(rates[:10]) + sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.02


# Images and captions


def test_the_corpus_is_drawn_from_the_seeds_of_pre_training(corpus: Corpus) -> None:
    image, caption = scene(30 % len(CLASSES), PRETRAINING_SEEDS + 30)
    assert np.array_equal(corpus.pixels[30], image) and corpus.captions[30] == caption
    assert np.array_equal(corpus.labels[:25], [*range(24), 0])
    assert image_seed(pretrain.EVALUATION_SEED, IMAGES_A_DATASET - 1) < PRETRAINING_SEEDS


def test_a_corpus_is_rendered_once(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    for _ in range(2):
        render_corpus(tmp_path, 24, 1, 1, lambda done, total: seen.append((done, total)))
    assert seen == [(24, 24)]


def test_every_caption_has_its_tokens() -> None:
    captions = [scene(class_index, seed)[1] for class_index in range(len(CLASSES)) for seed in range(30)]
    tokens = tokenise(captions)
    assert tokens.shape == (len(captions), CONTEXT_LENGTH)
    assert (tokens.argmax(dim=1) == torch.tensor([len(caption.split()) for caption in captions])).all()
    words = [WORDS[token - 1] for token in tokens[7] if 0 < token < END]
    assert " ".join(words) == captions[7]
    assert len(set(WORDS)) == len(WORDS) < END < VOCABULARY_SIZE


def test_an_unknown_word_is_refused() -> None:
    with pytest.raises(KeyError, match="photo"):
        tokenise(["a photo of a star"])


def test_a_crop_of_everything_is_the_image_or_its_mirror_images() -> None:
    images = torch.rand(16, 3, 32, 32, generator=generator())
    crops = random_crops(images, 32, (2.0, 2.0), generator())  # larger than the image: all of it
    mirrored = [images, images.flip(3)]
    distances = torch.stack([(crops - each).abs().amax(dim=(1, 2, 3)) for each in mirrored])
    assert (distances.amin(dim=0) < 1e-4).all() and (distances.argmin(dim=0).unique() == torch.tensor([0, 1])).all()


def test_crops_lie_within_the_image_and_cover_the_area_asked_for() -> None:
    ramp = torch.linspace(0, 1, 64).expand(200, 3, 64, 64)
    width = random_crops(ramp, 32, (0.25, 0.25), generator())[:, 0, 0]
    covered = (width[:, -1] - width[:, 0]).abs() * 32 / 31 * 63 / 64
    assert covered.square().mean().item() == pytest.approx(0.25, rel=0.1)
    assert covered.min() > math.sqrt(0.25 * 3 / 4) - 0.01 and covered.max() < math.sqrt(0.25 * 4 / 3) + 0.01


def in_two_colours(figure: torch.Tensor, low: tuple[float, ...], high: tuple[float, ...]) -> torch.Tensor:
    return torch.lerp(*(torch.tensor(colour).view(1, 3, 1, 1) for colour in (low, high)), figure)


def test_recolouring_takes_away_colour_and_light_but_not_shape() -> None:
    coarse = (torch.rand(1, 1, 12, 12, generator=generator()) > 0.5).float()
    figure = coarse.repeat_interleave(4, 2).repeat_interleave(4, 3)
    dim = in_two_colours(figure, (0.2, 0.1, 0.3), (0.4, 0.5, 0.3))
    bright = in_two_colours(figure, (0.1, 0.2, 0.0), (1.0, 1.0, 0.9))
    for strength in (0.0, 0.5, 1.0):
        one, other = (recolour(images, strength, generator(4)) for images in (dim, bright))
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
    grey = recolour(dim.expand(8, -1, -1, -1), 0.0, generator())
    assert torch.equal(grey[:, 0], grey[:, 1])
    correlation = torch.corrcoef(torch.stack([grey[0, 0].flatten(), figure.flatten()]))[0, 1]
    assert correlation > 0.9
    assert recolour(dim.expand(64, -1, -1, -1), 1.0, generator()).mean(dim=(2, 3)).std(dim=0).min() > 0.1


def test_recolouring_takes_away_grain_and_shading() -> None:
    """What two crops of one scene share beside its shapes is nearly gone."""
    half = torch.zeros(1, 1, 32, 32)
    half[..., 16:] = 1
    slope = torch.linspace(-0.1, 0.1, 32).view(1, 1, 32, 1)
    grain = 0.08 * torch.randn(1, 1, 32, 32, generator=generator())
    plain, uneven = (in_two_colours(figure, (0.2,) * 3, (0.8,) * 3) for figure in (half, half + slope + grain))
    one, other = (recolour(images, 0.0, generator(4)) for images in (plain, uneven))
    inside = (..., slice(4, -4), slice(2, 13))
    before, after = (uneven - plain)[inside].std(), (other - one)[inside].std()
    assert after < before / 3


def test_jitter_keeps_the_range_and_changes_every_image() -> None:
    images = torch.rand(8, 3, 16, 16, generator=generator())
    changed = jitter(images, 1.0, generator(1))
    assert changed.min() >= 0 and changed.max() <= 1
    assert ((changed - images).abs().amax(dim=(1, 2, 3)) > 0.02).all()
    torch.testing.assert_close(jitter(images, 0.0, generator(1)), images)


# Weights


def test_saved_weights_are_read_back_as_a_backbone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build("supervised").eval()
    path = tmp_path / "supervised.safetensors"
    pretrain.save_weights(path, model, {"paradigm": "supervised"})
    backbone = load_backbone("bundled:supervised", weights=path)
    images = torch.randn(4, 3, 64, 64, generator=generator())
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), model(images), atol=2e-2, rtol=0)  # float16


def test_pre_training_writes_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(n_steps=1, batch_size=8, learning_rate=1e-3)
    path = pretrain.pretrain("supervised", settings, n_images=24, corpus_folder=tmp_path, out=tmp_path / "out")
    assert path == tmp_path / "out" / "supervised.safetensors" and path.is_file()
    assert "step 1/1" in capsys.readouterr().err


@pytest.fixture(scope="module")
def held_out() -> tuple[torch.Tensor, torch.Tensor]:
    return pretrain.evaluation_images(400)


@pytest.mark.parametrize("name", BUNDLED)
def test_shipped_weights_are_far_above_random_ones(name: str, held_out: tuple[torch.Tensor, torch.Tensor]) -> None:
    backbone = load_backbone(f"bundled:{name}")
    trained = pretrain.origin_knn(backbone, *held_out)
    initialise(backbone, 0)
    assert trained >= pretrain.origin_knn(backbone, *held_out) + 0.15


def test_evaluation_prints_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    pretrain.evaluate(pretrain.WEIGHTS_FOLDER, 168)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [f"bundled:{name}" for name in BUNDLED]
