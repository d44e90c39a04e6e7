"""The grammar of names, what is said of wrong ones, and the paradigms."""

from __future__ import annotations

import subprocess
import sys

import pytest

from engine.backbones import bundled
from engine.backbones.names import FAMILIES, PARADIGMS, BackboneName, paradigm_of, parse_name, unknown_model
from engine.errors import StudyError


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("timm:vit_base_patch16_224.augreg_in21k", ("timm", "vit_base_patch16_224", "augreg_in21k")),
        ("open_clip:ViT-B-16/laion2b_s34b_b88k", ("open_clip", "ViT-B-16", "laion2b_s34b_b88k")),
        ("bundled:image-text", ("bundled", "image-text", "")),
    ],
)
def test_names_come_apart_and_together_again(text: str, parts: tuple[str, str, str]) -> None:
    name = parse_name(text)
    assert (name.family, name.model, name.tag) == parts
    assert str(name) == text


@pytest.mark.parametrize(
    ("text", "problem", "fix"),
    [
        ("vit_base_patch16_224", "no family", 'write a name like "timm:vit_base_patch16_224.augreg_in21k"'),
        ("tim:vit", 'unknown family "tim"; did you mean "timm"?', "write a name like"),
        ("zzz:vit", 'unknown family "zzz"', "write a name like"),
        ("timm:vit_base_patch16_224", "need <model>.<tag>", 'like "timm:vit_base_patch16_224.augreg_in21k"'),
        ("timm:.augreg", "need <model>.<tag>", "write it like"),
        ("timm:", 'malformed (seen "",', "write it like"),
        ("open_clip:ViT-B-16", "need <model>/<tag>", 'like "open_clip:ViT-B-16/laion2b_s34b_b88k"'),
        ("timm:vit base.in1k", "malformed", "write it like"),
        ("bundled:", "need <model>)", 'like "bundled:supervised"'),
        ("bundled:supervisd", "bundled has no backbone of this name", 'write "bundled:supervised"'),
    ],
)
def test_wrong_names_say_what_is_wrong_and_what_to_write(text: str, problem: str, fix: str) -> None:
    with pytest.raises(StudyError) as caught:
        parse_name(text)
    assert caught.value.where == f'backbone "{text}"'
    assert problem in caught.value.problem
    assert fix in caught.value.fix


KNOWN = ["vit_a_224.one", "vit_a_224.two", "vit_b_224.one"]


@pytest.mark.parametrize(
    ("model", "tag", "problem", "fix"),
    [
        (
            "vit_a_224",
            "three",
            'vit_a_224 has no weights "three"',
            'write "timm:vit_a_224.one" or "timm:vit_a_224.two"',
        ),
        ("vit_b224", "one", "no backbone of this name with pre-trained weights", 'write "timm:vit_b_224.one"'),
        ("zzz", "q", "no backbone of this name", 'write "timm:vit_a_224.one"'),
    ],
)
def test_unknown_models_get_the_nearest_names(model: str, tag: str, problem: str, fix: str) -> None:
    error = unknown_model(BackboneName("timm", model, tag), KNOWN)
    assert problem in error.problem
    assert error.fix.startswith(fix)


@pytest.mark.parametrize(
    ("name", "paradigm"),
    [
        ("timm:vit_base_patch16_224.augreg_in21k", "supervised"),
        ("timm:vit_base_patch16_224.orig_in21k_ft_in1k", "supervised"),
        ("timm:vit_base_patch16_224.sam_in1k", "supervised"),  # sharpness-aware minimisation, not Segment Anything
        ("timm:deit3_base_patch16_224.fb_in22k_ft_in1k", "supervised"),
        ("timm:vit_base_patch16_224.dino", "self-supervised"),
        ("timm:vit_base_patch14_dinov2.lvd142m", "self-supervised"),
        ("timm:vit_small_patch16_dinov3.lvd1689m", "self-supervised"),
        ("timm:vit_base_patch16_224.mae", "self-supervised"),
        ("timm:beit_base_patch16_224.in22k_ft_in22k_in1k", "self-supervised"),
        ("timm:eva02_base_patch14_448.mim_in22k_ft_in1k", "self-supervised"),
        ("timm:vit_huge_patch14_gap_224.in1k_ijepa", "self-supervised"),
        ("timm:vit_base_patch16_clip_224.openai", "image-text"),
        ("timm:vit_base_patch16_clip_224.openai_ft_in1k", "image-text"),  # the first pre-training counts
        ("timm:eva_giant_patch14_224.clip_ft_in1k", "image-text"),
        ("timm:vit_base_patch16_siglip_224.webli", "image-text"),
        ("timm:vit_base_patch16_radio_v3.c_radio", "unknown"),
        ("timm:vit_base_patch16_dinov3_qkvb.eupe_lvd1689m", "unknown"),
        ("timm:vit_base_patch16_224.bamboo", "unknown"),
        ("timm:resnet50.a1_in1k", "supervised"),
        ("timm:resnet50.fb_swsl_ig1b_ft_in1k", "supervised"),
        ("timm:swin_tiny_patch4_window7_224.ms_in22k_ft_in1k", "supervised"),
        ("timm:mvitv2_base_cls.fb_inw21k", "supervised"),
        ("timm:convnext_tiny.dinov3_lvd1689m", "self-supervised"),
        ("timm:resmlp_12_224.fb_dino", "self-supervised"),
        ("timm:convnextv2_atto.fcmae", "self-supervised"),
        ("timm:convnextv2_base.fcmae_ft_in22k_in1k", "self-supervised"),
        ("timm:regnety_320.seer_ft_in1k", "self-supervised"),
        ("timm:resnet50_clip.openai", "image-text"),
        ("timm:resnet50_clip.cc12m", "image-text"),
        ("timm:convnext_base.clip_laion2b_augreg_ft_in12k_in1k", "image-text"),
        ("timm:samvit_base_patch16.sa1b", "unknown"),
        ("open_clip:ViT-B-16/laion2b_s34b_b88k", "image-text"),
        ("bundled:self-supervised", "self-supervised"),
    ],
)
def test_paradigms(name: str, paradigm: str) -> None:
    assert paradigm_of(name) == paradigm
    assert paradigm_of(parse_name(name)) == paradigm


def test_paradigm_of_a_malformed_name_is_refused() -> None:
    with pytest.raises(StudyError, match="no family"):
        paradigm_of("resnet")


def test_table_knows_the_bundled_trio() -> None:
    assert set(FAMILIES["bundled"].models) == set(bundled.BUNDLED) == set(PARADIGMS)


def test_names_need_no_torch() -> None:
    code = (
        "import sys; from engine.backbones import paradigm_of; "
        "assert paradigm_of('timm:vit_base_patch16_224.mae') == 'self-supervised'; "
        "heavy = {'torch', 'timm', 'open_clip', 'huggingface_hub'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
