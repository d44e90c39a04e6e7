"""The study file: what is read, what is refused and in which words, and which runs follow from it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import StudyError
from engine.executor_options import ExecutorSection
from engine.measures import MEASURES
from engine.quality import QUALITY
from engine.study import (
    BackboneSection,
    DataSection,
    Study,
    StudySection,
    freeze_study,
    load_study,
    n_probe_epochs,
    placed,
    run_specs,
)
from engine.study_changes import extended_study

TEXT = """\
[study]
name = "isic2018"
[data]
path = "data/ISIC2018"
[origin]
path = "/elsewhere/imagenet"
[[backbone]]
name = "timm:vit_base_patch16_224.augreg_in21k"
[[backbone]]
name = "bundled:supervised"
weights = "weights/a.safetensors"
[finetune]
seeds = 3
epochs = 2
learning_rate = { full = 5e-4 }
"""


def _load(folder: Path, text: str) -> Study:
    path = folder / "study.toml"
    path.write_text(text)
    return load_study(path)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return _load(tmp_path, TEXT)


def test_paths_are_relative_to_the_study_file_and_defaults_are_filled_in(study: Study, tmp_path: Path) -> None:
    assert study.data.path == str(tmp_path / "data/ISIC2018")
    assert study.origin is not None and study.origin.path == "/elsewhere/imagenet"
    assert study.backbone[1].weights == str(tmp_path / "weights/a.safetensors")
    assert study.finetune.methods == ("full", "linear", "scratch")
    assert study.probe.n == 2048


def test_every_measure_and_metric_of_the_tables_can_be_asked_for(tmp_path: Path) -> None:
    asked = f"[measure]\nsimilarity = {list(MEASURES)}\nquality = {list(QUALITY)}\n[finetune]".replace("'", '"')
    study = _load(tmp_path, TEXT.replace("[finetune]", asked))
    assert study.measure.similarity == tuple(MEASURES)
    assert study.measure.quality == tuple(QUALITY)


def test_a_frozen_study_reads_back_equal_from_any_folder(study: Study, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert _load(tmp_path / "other", freeze_study(study)) == study


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = 3", "sedes = 3", 'study.toml line 13: unknown key "sedes"; did you mean "seeds"?'),
        ("seeds = 3", "zzz = 3", 'unknown key "zzz"; known here: methods, seeds'),
        ("[origin]", "[orign]", 'study.toml line 5: unknown key "orign"; did you mean "origin"?'),
        ('weights = "w', 'weigths = "w', 'study.toml line 11: unknown key "weigths"; did you mean "weights"?'),
        ("seeds = 3", 'batch_size = "8"', 'study.toml line 13: finetune.batch_size = "8": need an integer from 1'),
        ("seeds = 3", "batch_size = 1.5", "finetune.batch_size = 1.5: need an integer from 1"),
        ("seeds = 3", "seeds = 0", "finetune.seeds = 0: need a number from 1"),
        ("seeds = 3", "seeds = 2000", "finetune.seeds = 2000: need a number up to 1000"),
        ("seeds = 3", 'weight_decay = "a"', 'finetune.weight_decay = "a": need a number from 0 up to 1'),
        ("seeds = 3", 'methods = ["ful"]', "need one of 'full', 'linear', 'scratch', "),
        ("[finetune]", '[measure]\nsimilarity = ["linear_ckq"]\n[finetune]', 'did you mean "linear_cka"?'),
        (
            "[finetune]",
            '[measure]\nquality = ["eced"]\n[finetune]',
            "need one of 'ece', 'brier', 'knn', 'effective_rank'",
        ),
        ("[finetune]", '[measure]\nquality = ["ece", "ece"]\n[finetune]', 'measure.quality: "ece" is named twice'),
        (
            "[finetune]",
            '[probe]\nn = 11\n[measure]\nsimilarity = ["rsa", "mutual_knn"]\n[finetune]',
            'probe.n = 11: need at least 12 images for measure.similarity "mutual_knn"',
        ),
        (
            "[finetune]",
            '[probe]\norigin_n = 11\n[measure]\nsimilarity = ["rsa", "mutual_knn"]\n[finetune]',
            'probe.origin_n = 11: need at least 12 images for measure.similarity "mutual_knn"',
        ),
        ("[finetune]", "[probe]\norigin_n = -1\n[finetune]", "probe.origin_n = -1: need a number from 0"),
        ("[finetune]", "[probe]\norigin_n = 1.5\n[finetune]", "probe.origin_n = 1.5: need an integer from 0"),
        ("[finetune]", "[attention]\nn = -1\n[finetune]", "attention.n = -1: need a number from 0"),
        ("[finetune]", "[attention]\nn = 1001\n[finetune]", "attention.n = 1001: need a number up to 1000"),
        ("[finetune]", "[attention]\nm = 1\n[finetune]", 'unknown key "m"; known here: n'),
        ("seeds = 3", "methods = []", "finetune.methods = []: need at least one"),
        ("full = 5e-4", "full = 0.0", "finetune.learning_rate.full = 0.0: need a number above 0"),
        ("full = 5e-4", "full = 10.0", "finetune.learning_rate.full = 10.0: need a number below 10"),
        ('name = "isic2018"', "name = 3", "study.name = 3: need a text in quotes"),
        ('name = "isic2018"', 'name = ""', 'study.name = "": need at least one character'),
        ('[data]\npath = "data/ISIC2018"', "", '"data" is missing'),
        ('path = "data/ISIC2018"', "", '"data.path" is missing'),
        ("epochs = 2", "epochs = 2\nwarmup_epochs = 2", "warmup_epochs = 2: need fewer than epochs = 2"),
        ("seeds = 3", 'methods = ["full", "full"]', 'finetune.methods: "full" is named twice'),
        ("[study]", "[study", "not a TOML file"),
        ("seeds = 3", 'methods = ["full", "lora:0.5"]', "finetune.methods.1 = \"lora:0.5\": need one of 'full'"),
        ("seeds = 3", 'methods = ["full", "wise_ft:1"]', 'need a mixing value: "wise_ft" is a mixture of one half'),
        ("seeds = 3", 'methods = ["full", "wise_ft:0.250"]', "need a mixing value"),
        ("seeds = 3", 'methods = ["full", "wise_ft:0.5"]', "need a mixing value"),
        (
            "seeds = 3",
            'methods = ["linear", "wise_ft"]',
            '"wise_ft" is made from the run of "full", which is not among',
        ),
        ("full = 5e-4", "wise_ft = 5e-4", "finetune.learning_rate.wise_ft: wise_ft trains nothing"),
        ("full = 5e-4", "lroa = 5e-4", 'did you mean "lora"?'),
        (
            "[finetune]",
            "[method.lora]\nrnk = 2\n[finetune]",
            'study.toml line 13: unknown key "rnk"; did you mean "rank"?',
        ),
        ("[finetune]", "[method.lora]\nrank = 0\n[finetune]", "line 13: method.lora.rank = 0: need a number from 1"),
        (
            "[finetune]",
            "[method.lora]\nrank = 1.5\n[finetune]",
            "method.lora.rank = 1.5: need an integer from 1 up to 1024",
        ),
        ("[finetune]", "[method.lroa]\nrank = 2\n[finetune]", 'unknown key "lroa"; did you mean "lora"?'),
        ("[finetune]", '[method.lora]\nlayers = "mlp"\n[finetune]', "need one of 'attention' or 'attention and mlp'"),
        ("[finetune]", "[method.l2_sp]\nalpha = 0.0\n[finetune]", "method.l2_sp.alpha = 0.0: need a number above 0"),
        ("[finetune]", "[method.ema]\ndecay = 1.0\n[finetune]", "method.ema.decay = 1.0: need a number below 1"),
        (
            "[finetune]",
            "[method.cka_penalty]\nlayers = [-1]\n[finetune]",
            'method.cka_penalty.layers = [-1]: need "last half", "all" or a list of blocks counted from 0',
        ),
        ("seeds = 3", 'batch_size = 3\nmethods = ["cka_penalty"]', '"cka_penalty" needs at least 4 images in a batch'),
    ],
)
def test_a_wrong_setting_is_named_with_its_line_and_what_is_needed(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in TEXT
    with pytest.raises(StudyError) as caught:
        _load(tmp_path, TEXT.replace(old, new, 1))
    assert message in str(caught.value)
    assert "fix: " in str(caught.value)


def test_a_missing_or_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no such study file"):
        load_study(tmp_path / "none.toml")
    with pytest.raises(StudyError, match="cannot be read"):
        load_study(tmp_path)


def test_runs_come_one_seed_of_everything_first_each_with_its_own_name(study: Study) -> None:
    specs = run_specs(study)
    assert len(specs) == 3 * 3 * 2
    assert {spec.seed for spec in specs[:6]} == {0}
    assert len({spec.run_id for spec in specs}) == len(specs)
    assert specs[0].run_id.startswith("timm-vit-base-patch16-224-augreg-in21k_full_seed00_")


def test_the_hash_of_a_run_follows_what_decides_its_result_and_nothing_else(study: Study) -> None:
    spec = run_specs(study)[0]
    assert spec.method == "full"

    def same(changed: Study) -> bool:
        return run_specs(changed)[0].spec_hash == spec.spec_hash

    assert same(replace(study, finetune=replace(study.finetune, seeds=7)))
    assert same(replace(study, study=replace(study.study, keep="none")))
    assert same(replace(study, machine=replace(study.machine, workers=3)))
    assert same(replace(study, executor=ExecutorSection("slurm", gpus=2, partition="a100")))
    assert same(replace(study, finetune=replace(study.finetune, learning_rate={"full": 5e-4, "linear": 1e-2})))
    assert not same(replace(study, finetune=replace(study.finetune, learning_rate={"full": 1e-4})))
    assert not same(replace(study, finetune=replace(study.finetune, epochs=3)))
    assert not same(replace(study, probe=replace(study.probe, n=100)))


def test_a_study_may_grow_but_not_change(study: Study) -> None:
    more = replace(study, finetune=replace(study.finetune, seeds=5, methods=("full",)), backbone=study.backbone[:1])
    assert extended_study(study, more) == more
    elsewhere = replace(study, executor=ExecutorSection("ray", address="head:6379", shared=False))
    assert extended_study(study, elsewhere) == elsewhere
    with pytest.raises(StudyError, match=r"finetune\.batch_size: is 8, but the study folder was started with 64"):
        extended_study(study, replace(study, finetune=replace(study.finetune, batch_size=8)))


def test_a_path_that_is_not_utf8_cannot_be_frozen() -> None:
    study = Study(StudySection("x"), DataSection(path="/data/\udcff"), (BackboneSection("bundled:supervised"),))
    with pytest.raises(StudyError, match="is not UTF-8") as caught:
        freeze_study(study)
    assert caught.value.where == "/data/\udcff"


def test_settings_of_later_versions_at_their_defaults_leave_a_runs_name_as_it_was() -> None:
    study = Study(StudySection("x"), DataSection(path="/data"), (BackboneSection("bundled:supervised"),))
    spec = run_specs(study)[0]
    # Computed before rotation, colour, class weights and sampling existed.
    assert spec.run_id == "bundled-supervised_full_seed00_08a09df9"
    assert replace(spec, finetune=replace(spec.finetune, rotation=10.0)).run_id != spec.run_id


@pytest.mark.parametrize("setting", ["origin_probe_n", "attention_n"])
def test_the_origin_probe_and_attention_name_a_run_unless_they_are_at_their_defaults(setting: str) -> None:
    study = Study(StudySection("x"), DataSection(path="/data"), (BackboneSection("bundled:supervised"),))
    spec = run_specs(study)[0]
    assert (spec.origin_probe_n, spec.attention_n) == (512, 6)
    ids = {replace(spec, **{setting: n}).run_id for n in (0, getattr(spec, setting), 13)}  # type: ignore[arg-type]
    assert len(ids) == 3 and "bundled-supervised_full_seed00_08a09df9" in ids


def test_they_reach_the_runs_and_cannot_change_in_a_folder_that_has_begun(tmp_path: Path) -> None:
    was = _load(tmp_path, TEXT)
    now = _load(tmp_path, TEXT.replace("[finetune]", "[probe]\norigin_n = 0\n[attention]\nn = 0\n[finetune]"))
    assert {(spec.origin_probe_n, spec.attention_n) for spec in run_specs(now)} == {(0, 0)}
    with pytest.raises(StudyError, match=r"probe\.origin_n: is 0, but the study folder was started with 512"):
        extended_study(was, now)
    with pytest.raises(StudyError, match=r"attention\.n: is 0, but the study folder was started with 6"):
        extended_study(was, replace(was, attention=now.attention))
    assert _load(tmp_path, freeze_study(now)) == now


def test_how_many_origin_images_a_measure_needs_matters_only_where_some_are_compared(tmp_path: Path) -> None:
    measure = '[measure]\nsimilarity = ["mutual_knn"]\n[finetune]'
    text = TEXT.replace("[finetune]", f"[probe]\norigin_n = 0\n{measure}")
    assert _load(tmp_path, text).probe.origin_n == 0
    origin = '[origin]\npath = "/elsewhere/imagenet"\n'
    assert origin in text
    few = text.replace("origin_n = 0", "origin_n = 5").replace(origin, "")
    assert _load(tmp_path, few).origin is None


def test_how_images_are_read_may_change_until_a_run_has_begun(tmp_path: Path) -> None:
    was = _load(tmp_path, TEXT)
    now = _load(
        tmp_path, TEXT.replace('path = "data/ISIC2018"', 'path = "elsewhere"\nwindow = "auto"\nmax_skipped = 0.2')
    )
    assert extended_study(was, now, has_begun=False).data.window == "auto"
    with pytest.raises(StudyError, match=r"data\.max_skipped: is 0\.2, but the study folder was started with 0\.05"):
        extended_study(was, now)
    more_origin = _load(tmp_path, TEXT.replace("[[backbone]]", "n = 99\n[[backbone]]", 1))
    with pytest.raises(StudyError, match=r"origin\.n"):
        extended_study(was, more_origin, has_begun=False)


def test_a_setting_of_a_method_names_the_runs_of_that_method_alone(tmp_path: Path) -> None:
    def ids(text: str) -> dict[str, str]:
        asked = TEXT.replace("seeds = 3", 'seeds = 1\nmethods = ["full", "ema", "l2_sp", "lp_ft", "wise_ft:0.25"]')
        return {spec.method: spec.run_id for spec in run_specs(_load(tmp_path, asked + text))}

    plain = ids("")
    for method, text in (
        ("ema", "[method.ema]\ndecay = 0.9\n"), ("l2_sp", "[method.l2_sp]\nalpha = 1.0\n"),
        ("lp_ft", "[method.lp_ft]\nprobe_epochs = 1\n"),
    ):  # fmt: skip
        found = ids(text)
        assert {name for name in found if found[name] != plain[name]} == {method}
    assert ids("[method.lora]\nrank = 2\n") == plain
    # From before there were methods with settings.
    study = Study(StudySection("x"), DataSection(path="/data"), (BackboneSection("bundled:supervised"),))
    assert [spec.run_id for spec in run_specs(study)][:3] == [
        "bundled-supervised_full_seed00_08a09df9",
        "bundled-supervised_linear_seed00_feb9877c",
        "bundled-supervised_scratch_seed00_13447497",
    ]


def test_a_frozen_study_holds_the_settings_of_its_methods_and_what_was_said_of_others(tmp_path: Path) -> None:
    text = (
        TEXT.replace("seeds = 3", 'methods = ["full", "ema"]')
        + "[method.l2_sp]\nalpha = 1.0\n[method.lora]\nrank = 8\n"
    )
    study = _load(tmp_path, text)
    frozen = freeze_study(study)
    assert "[method.ema]\ndecay = 0.99" in frozen and "[method.l2_sp]\nalpha = 1.0" in frozen
    assert "[method.lora]" not in frozen and "[method." not in freeze_study(_load(tmp_path, TEXT))
    assert _load(tmp_path, frozen) == study


def test_what_is_said_of_a_method_may_change_until_the_study_asks_for_it(tmp_path: Path) -> None:
    was = _load(tmp_path, TEXT.replace("seeds = 3", 'methods = ["full"]'))
    now = _load(
        tmp_path,
        TEXT.replace("seeds = 3", 'methods = ["full", "ema"]').replace("full = 5e-4", "full = 5e-4, ema = 1e-3")
        + "[method.ema]\ndecay = 0.5\n",
    )
    assert extended_study(was, now) == now
    later = replace(now, method=replace(now.method, ema=replace(now.method.ema, decay=0.6)))
    with pytest.raises(StudyError, match=r"method\.ema\.decay: is 0\.6, but the study folder was started with 0\.5"):
        extended_study(now, later)
    rates = replace(now, finetune=replace(now.finetune, learning_rate={"full": 5e-4, "ema": 2e-3}))
    with pytest.raises(StudyError, match=r"finetune\.learning_rate\.ema: is 0\.002"):
        extended_study(now, rates)


def test_what_a_method_needs_of_the_rest_of_the_study_is_said(tmp_path: Path) -> None:
    mixed = TEXT.replace("seeds = 3", 'methods = ["full", "wise_ft:0.3"]')
    assert _load(tmp_path, mixed).finetune.methods == ("full", "wise_ft:0.3")
    with pytest.raises(
        StudyError, match=r'study\.keep = "none": "wise_ft:0\.3" is made from the last weights of "full"'
    ):
        _load(tmp_path, mixed.replace('name = "isic2018"', 'name = "isic2018"\nkeep = "none"'))
    probing = TEXT.replace("seeds = 3", 'methods = ["lp_ft"]') + "[method.lp_ft]\nprobe_epochs = 2\n"
    with pytest.raises(StudyError, match=r"method\.lp_ft\.probe_epochs = 2: need fewer than finetune\.epochs = 2"):
        _load(tmp_path, probing)
    assert n_probe_epochs(_load(tmp_path, probing.replace("probe_epochs = 2", "probe_epochs = 1")).method.lp_ft, 2) == 1


def _with_executor(tmp_path: Path, text: str) -> Study:
    minimal = '[study]\nname = "x"\n[data]\npath = "d"\n[[backbone]]\nname = "bundled:supervised"\n[executor]\n'
    path = tmp_path / "study.toml"
    path.write_text(minimal + text)
    return load_study(path)


def test_where_runs_are_placed_is_read_and_frozen(tmp_path: Path) -> None:
    study = _with_executor(
        tmp_path,
        'kind = "slurm"\ngpus = 1\ncpus = 4\nmemory_gb = 32\ntime = 240\nextra = { constraint = "a100", nice = 5 }',
    )
    assert study.executor.extra == {"constraint": "a100", "nice": 5} and study.executor.memory_gb == 32
    (tmp_path / "frozen.toml").write_text(freeze_study(study))
    assert load_study(tmp_path / "frozen.toml") == study
    assert placed(study, "ray").executor.kind == "ray"
    half = _with_executor(tmp_path, 'kind = "ray"\ngpus = 0.5\naddress = "10.0.0.1:6379"')
    with pytest.raises(StudyError, match=r"executor\.gpus = 0\.5: need a whole number"):
        placed(half, "slurm")


def test_how_many_devices_train_a_run_is_no_part_of_its_name(tmp_path: Path) -> None:
    study = _load(tmp_path, TEXT)
    shared = placed(study, devices_per_run=4)
    assert shared.machine.devices_per_run == 4 and run_specs(shared) == run_specs(study)
    (tmp_path / "frozen.toml").write_text(freeze_study(shared))
    assert load_study(tmp_path / "frozen.toml") == shared
    assert extended_study(study, shared) == shared
    assert placed(shared, devices_per_run=1) == study


@pytest.mark.parametrize(
    ("machine", "says"),
    [
        ("devices_per_run = 0", "need a number from 1"),
        ("devices_per_run = 33\n[finetune]\nbatch_size = 32", r"= 33: more than finetune\.batch_size = 32 images"),
        (
            'devices_per_run = 2\n[finetune]\nmethods = ["linear"]',
            r"= 2: no run of the study trains a backbone, which is all that devices share \(fix: set it to 1\)",
        ),
        (
            'devices_per_run = 2\n[executor]\nkind = "slurm"',
            r"= 2: executor\.gpus = 1 is what slurm gives each run \(fix: set executor\.gpus = 2, or 0",
        ),
    ],
)
def test_devices_that_cannot_share_are_refused(tmp_path: Path, machine: str, says: str) -> None:
    minimal = '[study]\nname = "x"\n[data]\npath = "d"\n[[backbone]]\nname = "bundled:supervised"\n[machine]\n'
    (tmp_path / "study.toml").write_text(minimal + machine)
    with pytest.raises(StudyError) as caught:
        load_study(tmp_path / "study.toml")
    assert re.search(says, f"{caught.value.problem} (fix: {caught.value.fix})")


def test_executor_and_devices_change_together(tmp_path: Path) -> None:
    study = _with_executor(tmp_path, "gpus = 2\n")
    both = placed(study, "ray", 2)
    assert (both.executor.kind, both.machine.devices_per_run) == ("ray", 2)
    back = placed(both, "local", 4)
    assert (back.executor.kind, back.machine.devices_per_run) == ("local", 4)
    with pytest.raises(StudyError, match=r"devices_per_run = 4: executor\.gpus = 2 is what ray gives each run"):
        placed(both, devices_per_run=4)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gpus = 1.5", r"gpus = 1\.5: need a whole number \(or, with ray, a part of one\)"),
        ('kind = "slurm"\ncpus = 1.5', r"cpus = 1\.5: need a whole number with slurm"),
        ('address = "ray://head:10001"', 'need "auto", "local" or HOST:PORT'),
        ('partition = "a\\nb"', "partition: need a text on one line"),
        ('extra = { "x\\n#" = 1 }', "is no option of sbatch"),
        ('extra = { comment = "a\\nrm -r x" }', "or its value is not on one line"),
        ('extra = { array = "0-9" }', "is for simtui to set"),
        ('kind = "slrm"', 'did you mean "slurm"'),
        ("gpus = -1", "need a number from 0"),
    ],
)
def test_an_executor_that_cannot_be_is_refused_in_words(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(StudyError, match=says):
        _with_executor(tmp_path, text)
