"""The attention view: one image under the attention of one layer, before, after and the difference."""

from __future__ import annotations

from pathlib import Path

from textual import work
from textual.app import ComposeResult

from engine.analysis.options import TableOptions
from engine.analysis.table import Table
from engine.errors import SimtuiError
from engine.jobs.attention import attention_of_image
from engine.runs.record import RunRecord
from engine.runs.study_folder import StudyFolder
from simtui.actions import ATTENTION
from simtui.reader import Maps
from simtui.safe_text import safe
from simtui.screens.ask import AskScreen
from simtui.screens.over import lay_over
from simtui.screens.view import ViewScreen, bindings_of
from simtui.selection import after
from simtui.views import attention
from simtui.views.attention import AttentionScreenData
from simtui.views.run_order import run_ids_in_order
from simtui.widgets.lines import Lines
from simtui.widgets.pictures import Pictures, height_of, side_for


class AttentionScreen(ViewScreen):
    """Pictures above, the layers below."""

    VIEW = ATTENTION
    BINDINGS = bindings_of(ATTENTION)

    def compose_data(self) -> ComposeResult:
        """What is shown, the pictures, the layers."""
        self._shown: AttentionScreenData | None = None
        self._of_file: tuple[str, Maps] | None = None
        self._path: Path | None = None
        yield Lines(id="control")
        yield Pictures("pictures", self.simtui.is_colorless)
        yield Lines(id="layers")

    def show_data(self) -> str | None:
        """The maps of the selected run, or why there are none."""
        snapshot, run_id = self.simtui.snapshot, self.simtui.shown_run_id()
        record = snapshot.record(run_id) if snapshot else None
        if record is None:
            return self.nothing("No runs yet.", "Attention maps are made at the end of a run.")
        answer = self.simtui.answer(ATTENTION)
        found = self._of_file[1] if self._of_file and self._of_file[0] == run_id else answer and answer.value
        if found is None:
            return None if self._shown else self.nothing("reading …")
        self._shown = None
        if isinstance(found, SimtuiError):
            return self.failed(found)
        assert isinstance(found, tuple)
        before, after_maps = found
        self._shown = attention.screen_data(before, after_maps, self.simtui.selection)
        self.lines("control").show([attention.control(self._shown, record)])
        self.call_after_refresh(self._draw)
        return attention.summary(self._shown, record)

    def table(self) -> Table | None:
        """The map in sight, by patch."""
        from engine.analysis.attention import attention_map_table

        data = self._shown
        if data is None:
            return None
        layer = data.before.layers[data.layer]
        return attention_map_table(data.before, data.after, data.image, layer, data.head, data.pooling)

    def table_options(self) -> TableOptions:
        """The run, the image, the layer and the head in sight."""
        data = self._shown
        assert data is not None
        image = str(self._path) if self._of_file and self._path else attention.image_names(data.before)[data.image]
        layer = data.before.layers[data.layer]
        return TableOptions(
            run=self.simtui.shown_run_id(), layer=layer, pooling=data.pooling, image=image, head=data.head
        )

    def action_move(self, where: str) -> None:
        """Up and down another layer, left and right another head; before the first head stands their mean."""
        data = self._shown
        if data is None:
            return
        step = 1 if where in ("down", "right") else -1
        if where in ("up", "down"):
            layer = min(max(data.layer + step, 0), len(data.before.layers) - 1)
            self.simtui.select(layer=data.before.layers[layer])
        else:
            heads = [None, *range(data.before.n_heads)]
            self.simtui.select(head=heads[(heads.index(data.head) + step) % len(heads)])

    def action_move_patch(self, where: str) -> None:
        """Moves the cursor over the patches; the first time, to the one that the run looks at most."""
        if self._shown:
            self.simtui.select(patch=attention.next_patch(self._shown, where))

    def on_pictures_pointed(self, message: Pictures.Pointed) -> None:
        """Reads out the patch that was clicked."""
        if self._shown:
            self.simtui.select(patch=attention.patch_at(self._shown, message.row, message.column))

    def action_step_image(self, step: int) -> None:
        """The next image of the set."""
        if self._of_file:
            self._of_file = None
            self.show()
        elif self._shown:
            images = attention.image_names(self._shown.before)
            self.simtui.select(image=after(images, images[self._shown.image], step))

    def action_open_image(self) -> None:
        """Asks for an image file, and shows the attention on it."""
        lay_over(self, AskScreen("Attention on which image file?", "/data/photo.png"), self._open_file)

    def _open_file(self, name: str | None) -> None:
        snapshot, run_id = self.simtui.snapshot, self.simtui.shown_run_id()
        record = snapshot.record(run_id) if snapshot else None
        if name and snapshot and record:
            self.simtui.notify(f"computing the attention on {safe(name)} …", markup=False)
            self._compute(snapshot.path, record, Path(name).expanduser())

    @work(thread=True)
    def _compute(self, study_path: Path, record: RunRecord, image_path: Path) -> None:
        """In a child process, which loads the models: it takes seconds."""
        try:
            maps = attention_of_image(StudyFolder(study_path), record, image_path)
        except SimtuiError as error:
            self.app.call_from_thread(self.simtui.tell_error, error)
        else:
            self.app.call_from_thread(self._show_file, record.run_id, maps, image_path)

    def _show_file(self, run_id: str, maps: Maps, image_path: Path) -> None:
        self._of_file, self._path = (run_id, maps), image_path
        self.show()

    def action_step_run(self, step: int) -> None:
        """The next run."""
        snapshot = self.simtui.snapshot
        if snapshot and snapshot.records:
            run_id = self.simtui.shown_run_id() or snapshot.records[0].run_id
            run_ids = run_ids_in_order(snapshot, self.simtui.selection) or [run_id]
            self.simtui.select(run_id=after(run_ids, run_id, step))

    def action_pooling(self) -> None:
        """From the CLS token, or from the patch tokens on average."""
        if self._shown:
            self.simtui.select(pooling=after(list(self._shown.before.maps), self._shown.pooling))

    def on_resize(self, event: object) -> None:
        """Pictures are made for one size."""
        self.call_after_refresh(self.show)

    def on_room_resized(self) -> None:
        """See `_draw`."""
        self._draw()

    def _draw(self) -> None:
        """The pictures as large as they can be beside enough lines for the layers."""
        if self._shown is None:
            return
        room = self.query_one("#data")
        if room.size.height < 4:  # it is hidden, or comes back: then it says when it has a size
            return
        n_layer_lines = min(len(self._shown.views) + 1, max(room.size.height // 3, 4))
        n_pictures = 3 if self._shown.before.pixels is None else 4
        height = room.size.height - 1 - n_layer_lines
        side = side_for(n_pictures, room.size.width, height)
        readout = attention.readout(self._shown)
        self.query_one(Pictures).show(attention.pictures(self._shown, side, self.simtui.is_256), readout)
        n_lines = room.size.height - 1 - height_of(side)
        self.lines("layers").show(attention.layer_lines(self._shown, room.size.width, n_lines))
