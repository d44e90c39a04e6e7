"""What each method computes, against values by hand, independent formulas and finite differences."""

from __future__ import annotations

import copy
import importlib.util
import sys
from dataclasses import replace
from importlib import import_module

import pytest
import torch
from torch import Tensor, nn

from engine.backbones import load_backbone
from engine.errors import MachineError, StudyError
from engine.finetune.checkpoints import optimiser_tensors
from engine.finetune.classifier import Classifier
from engine.finetune.methods import METHODS
from engine.finetune.optimiser import Depths, parameter_groups
from engine.finetune.recipes import check_recipes, make_recipe
from engine.finetune.recipes.cka_penalty import debiased_cka_of_layers
from engine.finetune.recipes.covariance_alignment import OrthogonalMap, covariance, misalignment
from engine.finetune.recipes.feature_distillation import relative_distance
from engine.finetune.recipes.lora import SplitAttention
from engine.finetune.recipes.recipe import Recipe
from engine.measures import debiased_cka
from engine.study import BackboneSection, DataSection, FinetuneSection, RunSpec, Study, StudySection, run_specs

HAS_PEFT = importlib.util.find_spec("peft") is not None
needs_peft = pytest.mark.skipif(not HAS_PEFT, reason="peft is not installed")
FAMILIES = ["bundled:supervised", "bundled:image-text", "bundled:self-supervised"]


def spec_of(method: str, backbone: str = FAMILIES[0], **settings: object) -> RunSpec:
    study = Study(
        StudySection("x"), DataSection(path="/d"), (BackboneSection(backbone),),
        finetune=FinetuneSection(methods=(method,), seeds=1, epochs=4),
    )  # fmt: skip
    spec = run_specs(study)[0]
    return replace(spec, settings={**spec.settings, **settings})


def made(method: str, backbone: str = FAMILIES[0], **settings: object) -> tuple[Recipe, Classifier]:
    torch.manual_seed(0)
    model = Classifier(loaded(backbone), nn.Linear(128, 3))
    return make_recipe(spec_of(method, backbone, **settings), model), model


def loaded(backbone: str) -> nn.Module:
    return load_backbone(backbone)


def images(n: int = 6, seed: int = 1) -> Tensor:
    return torch.randn(n, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def moved(model: Classifier, by: float = 0.02) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)


def penalty_of(recipe: Recipe, batch: Tensor) -> Tensor | None:
    _, kept = recipe.forward(batch)
    return recipe.penalty(kept)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.module])
def test_every_module_of_the_table_makes_something_and_names_its_source(name: str) -> None:
    module = import_module(METHODS[name].module)
    assert callable(module.make)
    assert module.__doc__ is not None and module.__doc__.startswith(f"`{name}`")
    assert "Source: " in module.__doc__ or "arXiv" in module.__doc__


@pytest.mark.parametrize(
    "method", [name for name, each in METHODS.items() if each.trains_backbone and not each.needs and name != "lora"]
)
def test_a_state_to_resume_from_is_as_large_as_the_table_says(method: str) -> None:
    recipe, model = made(method)
    recipe.begin(4)
    one = sum(value.numel() for value in model.state_dict().values())
    adamw = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad])
    logits, _ = recipe.forward(images())
    logits.sum().backward()  # type: ignore[no-untyped-call]
    adamw.step()
    kept = (model.state_dict(), recipe.state(), optimiser_tensors(adamw))
    assert sum(value.numel() for part in kept for value in part.values()) / one == pytest.approx(
        METHODS[method].resume, rel=0.01
    )


@pytest.mark.parametrize("method", ["feature_distillation", "cka_penalty", "covariance_alignment"])
def test_a_teacher_costs_nothing_at_first_and_is_never_trained(method: str) -> None:
    recipe, model = made(method)
    batch = images()
    logits, kept = recipe.forward(batch)
    torch.testing.assert_close(logits, model(batch))
    first = recipe.penalty(kept)
    assert first is not None and float(first.detach()) == pytest.approx(0, abs=1e-6)
    moved(model)
    later = penalty_of(recipe, batch)
    assert later is not None and float(later.detach()) > 1e-3
    later.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for name, parameter in model.backbone.named_parameters() if "mlp" in name)
    teacher = recipe._teacher  # type: ignore[attr-defined]
    start = loaded(FAMILIES[0])
    assert all(torch.equal(a, b) for a, b in zip(teacher.backbone.parameters(), start.parameters(), strict=True))
    assert not any(parameter.requires_grad for parameter in teacher.backbone.parameters())
    assert not teacher.backbone.training


@pytest.mark.parametrize("method", ["feature_distillation", "cka_penalty", "covariance_alignment", "l2_sp"])
def test_a_weight_scales_its_penalty(method: str) -> None:
    name = "alpha" if method == "l2_sp" else "weight"
    others = {"beta": 0.0} if method == "l2_sp" else {}
    values = []
    for weight in (1.0, 3.0):
        recipe, model = made(method, **{name: weight}, **others)
        moved(model)
        found = penalty_of(recipe, images())
        assert found is not None
        values.append(float(found.detach()))
    assert values[1] == pytest.approx(3 * values[0], rel=1e-5)


@pytest.mark.parametrize("method", ["feature_distillation", "cka_penalty", "covariance_alignment", "l2_sp"])
def test_training_on_the_penalty_alone_undoes_what_it_is_a_penalty_on(method: str) -> None:
    recipe, model = made(method)
    moved(model, 0.05)
    parameters = [*model.backbone.parameters(), *recipe.extra.parameters()]
    optimiser = torch.optim.Adam(parameters, 2e-3)
    values = []
    for _ in range(25):
        found = penalty_of(recipe, images(16))
        assert found is not None
        optimiser.zero_grad()
        found.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        values.append(float(found.detach()))
    assert values[-1] < values[0] / 2


def test_distillation_is_the_mean_squared_distance_relative_to_the_teachers_size() -> None:
    x, target = torch.tensor([[1.0, 2.0], [3.0, 5.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert float(relative_distance(x, target)) == pytest.approx(((0 + 4) + (9 + 9)) / (1 + 4))


@pytest.mark.parametrize("shape", [(3, 4, 9), (2, 16, 200), (1, 64, 8)])
def test_the_loss_is_the_cka_that_is_measured(shape: tuple[int, int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator) + 30
    y = 0.5 * x + torch.randn(shape, generator=generator)
    found = debiased_cka_of_layers(x, y)
    expected = [float(debiased_cka(a, b)) for a, b in zip(x, y, strict=True)]
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx(expected, abs=1e-9)


def test_the_gradient_of_the_cka_is_that_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 7, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 7, 5, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(debiased_cka_of_layers, (x, y))


def test_a_block_without_a_cka_has_no_part_in_the_penalty_and_no_gradient() -> None:
    x = torch.randn(2, 6, 5, requires_grad=True)
    y = torch.randn(2, 6, 5)
    y[1] = 1.0  # constant over the images
    found = debiased_cka_of_layers(x, y)
    assert torch.isnan(found).tolist() == [False, True]
    (1 - found).nan_to_num(0.0).mean().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None and torch.isfinite(x.grad).all() and x.grad[0].abs().max() > 0
    assert x.grad[1].abs().max() == 0


def test_the_cka_penalty_is_one_minus_the_mean_over_the_chosen_blocks_under_autocast_too() -> None:
    for layers, rows in (("last half", [3, 4, 5]), ("all", list(range(6))), ([1, 4], [1, 4])):
        recipe, model = made("cka_penalty", layers=layers)
        moved(model)
        before, now = loaded(FAMILIES[0]).forward_blocks(images()), model.backbone.forward_blocks(images())
        expected = [
            1 - float(debiased_cka(getattr(before, pooling)[row].detach(), getattr(now, pooling)[row].detach()))
            for pooling in ("cls", "feat")
            for row in rows
        ]
        found = penalty_of(recipe, images())
        assert found is not None and float(found.detach()) == pytest.approx(sum(expected) / len(expected), abs=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        _, kept = recipe.forward(images())
    low = recipe.penalty(kept)
    assert low is not None and low.dtype == torch.float64
    assert float(low.detach()) == pytest.approx(float(found.detach()), abs=0.1)


def test_batches_that_are_too_small_have_no_penalty() -> None:
    recipe, model = made("cka_penalty")
    assert penalty_of(recipe, images(3)) is None and penalty_of(recipe, images(4)) is not None
    recipe, model = made("covariance_alignment")
    moved(model)
    assert penalty_of(recipe, images(1)) is None and penalty_of(recipe, images(2)) is not None


def test_a_block_that_is_not_there_is_named() -> None:
    with pytest.raises(
        StudyError, match=r"method\.cka_penalty\.layers: 6 is not there: bundled:supervised has blocks 0"
    ):
        made("cka_penalty", layers=[2, 6])
    with pytest.raises(StudyError, match="6 is not there"):
        check_recipes([spec_of("full"), spec_of("cka_penalty", layers=[6])], load_backbone(FAMILIES[0]))


def test_covariances_are_aligned_up_to_the_map() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 6, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))[0]
    rotated = x @ rotation + 5  # a translation does not count either
    torch.testing.assert_close(covariance(x), torch.cov(x.T))
    one = torch.eye(6, dtype=torch.float64)
    assert float(misalignment(covariance(rotated), covariance(x), rotation)) == pytest.approx(0, abs=1e-12)
    assert float(misalignment(covariance(rotated), covariance(x), one)) > 0.1
    assert float(misalignment(covariance(2 * x), covariance(x), one)) == pytest.approx(9)  # scale does
    assert float(misalignment(covariance(x), covariance(x) * 0, one)) == 0


def test_the_map_is_learned_and_stays_orthogonal() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 5, generator=generator) * torch.arange(1, 6)
    turn = torch.linalg.matrix_exp(0.3 * (a := torch.randn(5, 5, generator=generator)) - 0.3 * a.T)
    found, target = covariance(x @ turn), covariance(x)
    learned = OrthogonalMap(5)
    torch.testing.assert_close(learned(), torch.eye(5))
    first = float(misalignment(found, target, learned()).detach())
    optimiser = torch.optim.Adam(learned.parameters(), 0.02)
    for _ in range(300):
        optimiser.zero_grad()
        misalignment(found, target, learned()).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        torch.testing.assert_close(learned() @ learned().T, torch.eye(5), atol=1e-5, rtol=0)
    assert float(misalignment(found, target, learned()).detach()) < first / 100


def test_l2_sp_pulls_towards_the_start_and_has_no_other_decay() -> None:
    recipe, model = made("l2_sp", alpha=0.4, beta=0.2)
    head = float(model.head.weight.detach().square().sum())
    first = penalty_of(recipe, images(1))
    assert first is not None and float(first.detach()) == pytest.approx(0.1 * head, rel=1e-5)
    start = [parameter.detach().clone() for parameter in model.backbone.parameters()]
    moved(model)
    distance = sum(
        float((a.detach() - b).square().sum()) for a, b in zip(model.backbone.parameters(), start, strict=True)
    )
    found = penalty_of(recipe, images(1))
    assert found is not None and float(found.detach()) == pytest.approx(0.2 * distance + 0.1 * head, rel=1e-4)
    assert recipe.settings().weight_decay == 0 and recipe.spec.finetune.weight_decay > 0


def test_layer_decay_lowers_the_rates_towards_the_input() -> None:
    recipe, model = made("layer_decay", decay=0.5)
    groups = parameter_groups(model, 0.0, recipe.settings().layer_decay, Depths(6))
    scales = {group["lr_scale"] for group in groups}
    assert scales == {0.5**depth for depth in range(8)}


def test_the_average_follows_the_weights_as_its_definition_says() -> None:
    recipe, model = made("ema", decay=0.5)
    name = "backbone.model.blocks.0.attn.qkv.weight"
    values = [model.state_dict()[name].clone()]
    expected = values[0].double()
    for step in (1, 2, 3, 20):
        moved(model)
        recipe.after_step(step)
        share = min(0.5, (1 + step) / (10 + step))
        expected = share * expected + (1 - share) * model.state_dict()[name].double()
    seen = recipe.looked_at()
    torch.testing.assert_close(seen.state_dict()[name].double(), expected, atol=1e-6, rtol=1e-5)
    assert not any(parameter.requires_grad for parameter in seen.parameters())
    other, _ = made("ema", decay=0.5)
    other.restore(recipe.state())
    assert all(torch.equal(a, b) for a, b in zip(other.state().values(), recipe.state().values(), strict=True))


def test_lp_ft_freezes_the_backbone_in_eval_mode_until_its_phase_ends() -> None:
    recipe, model = made("lp_ft", probe_epochs=1)
    assert [(each.n_epochs, each.learning_rate) for each in recipe.phases()] == [(1, 1e-2), (3, 1e-4)]
    for epoch, trains in ((1, False), (2, True), (1, False)):
        recipe.begin(epoch)
        assert all(parameter.requires_grad is trains for parameter in model.backbone.parameters())
        assert model.backbone.training is trains and model.head.training and model.head.weight.requires_grad


@needs_peft
@pytest.mark.parametrize("backbone", FAMILIES)
@pytest.mark.parametrize("layers", ["attention", "attention and mlp"])
def test_adapters_are_all_that_is_trained_of_a_backbone_and_merge_into_a_plain_one(backbone: str, layers: str) -> None:
    recipe, model = made("lora", backbone, layers=layers, rank=4, dropout=0.1)
    plain = Classifier(loaded(backbone), nn.Linear(128, 3))
    plain.head.load_state_dict(model.head.state_dict())
    seen = recipe.looked_at()
    assert all(torch.equal(value, seen.state_dict()[name]) for name, value in plain.state_dict().items())
    recipe.begin(1)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    n_layers = 6 * (2 if layers == "attention" else 4)
    assert len(trained) == 2 + 2 * n_layers
    assert all(".lora_" in name or name.startswith("head.") for name in trained)
    optimiser = torch.optim.AdamW(trained.values(), 1e-2)
    for step in range(3):
        optimiser.zero_grad()
        model(images()).square().mean().backward()
        assert all(parameter.grad is not None for parameter in trained.values())
        optimiser.step()
        recipe.after_step(step + 1)
    model.eval()
    merged = recipe.looked_at()
    torch.testing.assert_close(merged(images()), model(images()), atol=1e-5, rtol=1e-4)
    assert merged.state_dict().keys() == plain.state_dict().keys()
    changed = {name for name, value in plain.state_dict().items() if not torch.equal(value, merged.state_dict()[name])}
    assert len(changed) == n_layers + 2 and all("attn" in name or "mlp" in name or "head" in name for name in changed)


@needs_peft
def test_adapters_are_drawn_by_the_seed_alone() -> None:
    def drawn(seed: int) -> list[Tensor]:
        torch.manual_seed(seed + 17)
        spec = replace(spec_of("lora"), seed=seed)
        model = Classifier(loaded(FAMILIES[0]), nn.Linear(128, 3))
        state = torch.get_rng_state()
        make_recipe(spec, model)
        assert torch.equal(torch.get_rng_state(), state)
        return [value for name, value in model.state_dict().items() if "lora_A" in name]

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_a_split_attention_is_the_whole_one() -> None:
    torch.manual_seed(0)
    for bias in (True, False):
        whole = nn.MultiheadAttention(12, 3, bias=bias, batch_first=True)
        for parameter in whole.parameters():
            nn.init.normal_(parameter)
        x = torch.randn(2, 7, 12)
        found, weights = SplitAttention(whole)(x, x, x, need_weights=False, attn_mask=None)
        assert weights is None
        torch.testing.assert_close(found, whole(x, x, x, need_weights=False)[0], atol=1e-4, rtol=1e-4)


@needs_peft
def test_a_layer_that_is_read_directly_or_unknown_is_refused() -> None:
    class Reads(nn.Module):
        def __init__(self, inner: nn.Linear) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.inner.weight, self.inner.bias)

    model = Classifier(loaded(FAMILIES[0]), nn.Linear(128, 3))
    other = copy.deepcopy(model)
    model.backbone.blocks[1].mlp.fc1 = Reads(model.backbone.blocks[1].mlp.fc1)
    with pytest.raises(StudyError, match=r"blocks\.1\.mlp\.fc1\.inner\.weight is read directly") as caught:
        make_recipe(spec_of("lora"), model)
    assert 'leave "lora" out' in str(caught.value)
    other.backbone.blocks[2].mlp = nn.Identity()
    with pytest.raises(StudyError, match=r"blocks\.2\.mlp has no linear layers"):
        make_recipe(spec_of("lora"), other)
    clip = Classifier(loaded(FAMILIES[1]), nn.Linear(128, 3))
    clip.backbone.blocks[0].attn.batch_first = False
    with pytest.raises(StudyError, match=r"resblocks\.0\.attn is not one sequence's attention to itself"):
        make_recipe(spec_of("lora", FAMILIES[1]), clip)


def test_without_peft_the_command_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MachineError, match=r'lora: needs peft\n  fix: pip install "simtui\[lora\]"'):
        made("lora")
