"""A backbone whose attention cannot be read: its study says so, goes on without its maps, and keeps those of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.backbones.backbone import Backbone
from engine.errors import StudyError
from engine.finetune import reference as reference_module
from engine.integrity import verify
from engine.jobs.plan import notes_of
from engine.runs.record import State
from tests.faults.conftest import Undisturbed
from tests.faults.forks import new_folder, work

UNREADABLE, READABLE = "bundled:self-supervised", "bundled:supervised"


def break_attention() -> None:
    """In a fork: as `attention_of` says it of blocks that it does not know."""
    real = reference_module.take_attention

    def take(backbone: Backbone, *arguments: Any, **options: Any) -> Any:
        if backbone.info.name == UNREADABLE:
            raise StudyError(f'backbone "{UNREADABLE}"', "its attention cannot be read: made up", "set attention.n = 0")
        return real(backbone, *arguments, **options)

    reference_module.take_attention = take


def test_it_is_said_and_the_study_goes_on(undisturbed: Undisturbed, tmp_path: Path) -> None:
    one = f'[[backbone]]\nname = "{READABLE}"\nweights = "w.safetensors"\n'
    text = undisturbed.request_path.read_text().replace("epochs = 6", "epochs = 1")
    assert one in text
    request_path = undisturbed.request_path.with_name("two.toml")
    request_path.write_text(text.replace(one, one.replace(READABLE, UNREADABLE) + one))
    folder = new_folder(request_path, tmp_path / "study")
    assert work(folder, break_attention) == 0, folder.log_path.read_text()
    # Of the first of two backbones: the second must not take its place.
    assert [note for note in notes_of(folder.path) if "attention" in note] == [
        f'no attention maps: backbone "{UNREADABLE}": its attention cannot be read: made up'
    ]
    records = folder.listing().records
    assert {record.state for record in records} == {State.DONE} and len(records) == 6
    for record in records:
        is_readable = record.spec.backbone.name == READABLE
        is_trained = record.spec.method != "linear"
        metrics = folder.results(record.run_id).layer_quality
        assert any("attention" in each for each in metrics) == is_readable
        assert (record.provenance.attention_reference != "") == is_readable
        assert ("attention.h5" in record.files) == (is_readable and is_trained)
    assert verify(folder).findings == ()
