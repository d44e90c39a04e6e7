"""The commands: read arguments, call the engine, print; what is heavy is imported by the command that needs it."""

from __future__ import annotations

import gc
import json
import logging
import os
import shutil
import sys
import textwrap
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.analysis.names import TABLE_NAMES
from engine.errors import SimtuiError, StudyError
from engine.figures.names import FIGURE_NAMES
from simtui.choices import choices, complete, reading_options, refuse_unused
from simtui.lookalikes import use_lookalikes
from simtui.safe_text import safe

if TYPE_CHECKING:
    from engine.executor_options import ExecutorKind
    from engine.runs.study_folder import StudyFolder

_FOLDER = click.Path(path_type=Path)
_FORMAT = click.Choice(["csv", "tsv", "markdown", "latex", "parquet"])
_POLICY = click.Choice(["ignore", "zeros", "ones"])


class _Commands(click.Group):
    """A first word that is no command is a study to open: `simtui STUDY`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None and Path(args[0]).exists():
            return "open", self.commands["open"], args
        return super().resolve_command(ctx, args)


def examples(*lines: str, names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Examples as the end of a command's `--help`, after a list of names and what they are."""
    listed = "".join(f"  {name:<23}{says}\n" for name, says in (names or {}).items())
    before = f"\b\nTables:\n{listed}\n" if listed else ""
    return {"epilog": before + "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)}


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    **examples("simtui", "simtui demo", "simtui run study.toml", "simtui results/isic2018"),
)
@click.version_option(package_name="simtui")
@click.pass_context
def commands(context: click.Context) -> None:
    """See what fine-tuning does to the representations of pre-trained vision backbones.

    Without a command, opens the study that was open last, else the sample study. `simtui STUDY` opens that study.
    """
    if context.invoked_subcommand is None:
        from simtui.recent import last_or_sample

        _open([last_or_sample()])


@commands.command("open", hidden=True)
@click.argument("studies", nargs=-1, required=True, type=_FOLDER)
def open_command(studies: tuple[Path, ...]) -> None:
    """Opens study folders."""
    _open(list(studies))


@commands.command(**examples("simtui serve", "simtui serve studies/isic2018 --port 9000"))
@click.argument("studies", nargs=-1, type=_FOLDER)
@click.option("--port", type=click.IntRange(1024, 65535), default=8765, show_default=True, help="Of 127.0.0.1.")
def serve(studies: tuple[Path, ...], port: int) -> None:
    """Show the app in a browser, of this machine or through ssh -L; without STUDIES, what `simtui` would open.

    Answers on 127.0.0.1 only, and only under the address that it prints: the secret in it, new at every start, keeps
    out other users of this machine and pages of other sites. Ctrl+c ends it and every app that it has started. What the
    app writes lies on this machine, in the folder where this was started. Needs simtui[serve].
    """
    from simtui.recent import last_or_sample
    from simtui.serving import serve as serve_studies

    folders = studies or (last_or_sample(),)
    for path in folders:
        _study_folder(path)
    serve_studies(folders, port, click.echo)
    raise click.Abort


@commands.command(
    **examples(
        "simtui run study.toml",
        "simtui run study.toml --out results/isic2018 --wait",
        "simtui run results/isic2018",
        "simtui run study.toml --devices-per-run 2",
        "simtui run study.toml --executor slurm",
    )
)
@click.argument("study", type=_FOLDER)
@click.option("--out", type=_FOLDER, help="The study folder.  [default: studies/NAME beside the study file]")
@click.option(
    "--executor",
    type=click.Choice(["local", "ray", "slurm"]),
    help="What places the runs; kept in the study folder.  [default: as the study says, else local]",
)
@click.option(
    "--devices-per-run",
    type=click.IntRange(1, 64),
    metavar="N",
    help="GPUs that train one run together, each a part of every batch, or processes of a CPU; kept in the study "
    "folder.  [default: as the study says, else 1]",
)
@click.option("--wait", is_flag=True, help="Stay and show progress; ctrl+c stops the study at the next epoch.")
def run(study: Path, out: Path | None, executor: ExecutorKind | None, devices_per_run: int | None, wait: bool) -> None:
    """Start or continue a study; it outlives the terminal.

    STUDY is a study file, or the folder of a study that is to go on. Finished runs are kept, interrupted ones continue
    from their last epoch, failed ones are tried again. On Ray (simtui[ray]) or Slurm (simtui[slurm]), [executor] of the
    study says what a run gets.
    """
    from engine.jobs.launch import make_study_folder
    from engine.study import load_study, placed
    from simtui.follow import start

    if study.is_dir():
        folder = _study_folder(study)
        request = placed(folder.study, executor, devices_per_run)
        if request != folder.study:
            folder = make_study_folder(request, study)
    else:
        request = placed(load_study(study), executor, devices_per_run)
        folder = make_study_folder(request, out or study.parent / "studies" / request.study.name)
    start(folder, waits=wait, again="simtui run")


@commands.command(**examples("simtui new", "simtui new data/ISIC2018"))
@click.argument("folder", required=False, type=_FOLDER)
def new(folder: Path | None) -> None:
    """Set up a study in the app: images, backbones, methods; see what it takes, write its file, start it.

    FOLDER is that of the labelled images, as for `simtui data`.
    """
    from simtui.completion import shown
    from simtui.recent import last_or_sample

    _open([last_or_sample()], images=shown(str(folder)) if folder else "")


@commands.command(
    **examples(
        "simtui compare timm:vit_base_patch16_224.augreg_in21k timm:resnet50.a1_in1k",
        "simtui compare timm:vit_small_patch16_224.augreg_in1k=before.safetensors studies/isic2018/runs/RUN",
        "simtui compare studies/a/runs/RUN/checkpoints/epoch-005.safetensors studies/a/runs/RUN --images data/ISIC2018",
        "simtui compare bundled:supervised bundled:self-supervised --print",
        "simtui compare A B --images photos --n 500 --measure rsa --measure procrustes -o map.csv",
    )
)
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--images", type=_FOLDER, help="A folder of images, as for simtui data.  [default: generated images]")
@click.option("--n", type=click.IntRange(4), default=2048, show_default=True, help="Images compared, at most.")
@click.option(
    "--measure", "measures", metavar="NAME", multiple=True, help="One or several.  [default: linear_cka, debiased_cka]"
)
@click.option("--print", "prints", is_flag=True, help="Print the maps; so it is where there is no terminal.")
@click.option("-o", "--output", type=_FOLDER, help="Write the maps into a file.")
@click.option("--format", "file_format", type=_FORMAT, help="[default: by the file's name; else csv]")
@click.option(
    "--digits", type=click.IntRange(1, 17), default=4, show_default=True, help="markdown, latex: significant."
)
@reading_options
def compare(
    first: str,
    second: str,
    images: Path | None,
    n: int,
    measures: tuple[str, ...],
    prints: bool,
    output: Path | None,
    file_format: str | None,
    digits: int,
    **given: Any,
) -> None:
    """Compare two checkpoints layer by layer, without a study: their map in the app, in print or in a file.

    A and B are each the name of a backbone (timm:MODEL.TAG, open_clip:MODEL/TAG, bundled:NAME), the same with a local
    file of its weights (NAME=FILE.safetensors), the folder of a run (its last weights), or a checkpoint in it. They may
    be of different architectures. Each sees the same images in the same order, at its own size and with its own
    normalisation; labels are of no matter. Rows are the layers of A, columns those of B. A pooling that only one of
    them has is left out: CLS is never compared with Feat.

    What was computed is kept in your cache, as the folder of a study: the same question again is answered at once.
    Beside a file that it writes, FILE.sources.json holds the digests of both weights and of the images.
    """
    from engine.data.options import DataOptions
    from engine.export import format_of
    from engine.jobs.compare import DEFAULT_MEASURES, ComparisonRequest, parse_checkpoint, refuse_request
    from simtui.comparing import compared, print_comparison, write_comparison
    from simtui.dataset_options import options_of

    if file_format and output is None:
        raise StudyError("--format", "is of a file", "add -o FILE, or leave it out")
    if images is None and any(value is not None for value in given.values()):
        raise StudyError("--window, --frame, --follow-links and --max-skipped", "are of --images", "add --images PATH")
    folder, reading = options_of(images, given, is_origin=False) if images else (None, DataOptions())
    request = ComparisonRequest(
        parse_checkpoint(first), parse_checkpoint(second), folder, n, measures or DEFAULT_MEASURES, reading
    )
    refuse_request(request)
    found = compared(request)
    if output is not None:
        n_rows = write_comparison(found, output, file_format or format_of(output), digits)
        click.echo(f"wrote {n_rows} rows to {safe(output)}", err=True)
    if prints or (output is None and not (sys.stdin.isatty() and sys.stdout.isatty())):
        print_comparison(found)
    elif output is None:
        _open([found.path], first_view="map", is_remembered=False)


@commands.command(
    "import",
    **examples(
        "simtui import runs/vit_isic --dry-run",
        "simtui import runs/vit_isic --images data/ISIC2018/test",
        "simtui import output/train --images data/test --backbone timm:vit_small_patch16_224.augreg_in1k --convert",
        "simtui import checkpoints --images photos --no-labels --backbone timm:resnet50.a1_in1k=start.safetensors",
    ),
)
@click.argument("directory", metavar="DIR", type=_FOLDER)
@click.option("--images", type=_FOLDER, help="Labelled images that the training has not seen, as for simtui data.")
@click.option("--labels/--no-labels", default=True, help="Without: all images, no accuracy.  [default: labels]")
@click.option("--origin", type=_FOLDER, help="Labelled images of the pre-training domain, for forgetting.")
@click.option("--backbone", metavar="NAME[=FILE]", help="What it started from.  [default: as its files say]")
@click.option("--input-size", type=click.IntRange(16, 1024), help="Pixels.  [default: as its files say]")
@click.option("--mean", metavar="R,G,B", help="How training normalised images.  [default: as said, or the backbone's]")
@click.option("--std", metavar="R,G,B", help="As --mean.")
@click.option("--part", metavar="WORD", help="Which of several networks in a file: teacher, state_dict_ema …")
@click.option("--order", type=click.Choice(["number", "name"]), default="number", help="What gives a file its epoch.")
@click.option("--counted-from", type=click.Choice(["0", "1"]), default="1", help="The first trained epoch in names.")
@click.option("--convert", is_flag=True, help="Open pickles (.pth .pt .bin), in a process that can do nothing else.")
@click.option("--out", type=_FOLDER, help="The study folder.  [default: studies/NAME of DIR, here]")
@click.option("--n", type=click.IntRange(4), default=2048, show_default=True, help="Images compared, at most.")
@click.option("--measure", "measures", metavar="NAME", multiple=True, help="[default: linear_cka, debiased_cka]")
@click.option("--quality", metavar="NAME", multiple=True, help="[default: ece, knn]")
@click.option("--keep-all", is_flag=True, help="Keep activations and weights of every epoch.  [default: of the last]")
@click.option("--dry-run", is_flag=True, help="Only say what was found.")
@click.option("--wait", is_flag=True, help="Stay and show progress; ctrl+c stops after the checkpoint that it is at.")
@reading_options
def import_command(
    directory: Path, images: Path | None, out: Path | None, dry_run: bool, wait: bool, **asked: Any
) -> None:
    """Make a study of checkpoints that you have trained elsewhere: one backbone, several epochs or seeds.

    DIR is a folder of timm, of the Trainer of Hugging Face, of open_clip or Lightning, or any folder whose files say
    their epoch. Nothing is trained, and nothing in DIR is changed. Each training becomes a run: similarity to the
    pre-trained backbone at every checkpoint, accuracy and calibration where a checkpoint has a head for the classes of
    the images, forgetting with --origin. Epoch 0 is the pre-trained backbone. Epochs without a checkpoint stay empty.

    The test images that --images names are looked at, else its validation images, else all; with --no-labels all. The
    same command again goes on, or adds checkpoints that are new since. What is asked for beyond these options, a study
    file can say: give it as --images, and its [data] is taken.
    """
    from simtui.importing import import_checkpoints

    import_checkpoints(directory, images, out, dry_run=dry_run, waits=wait, asked=asked)


@commands.command(**examples("simtui status studies/isic2018"))
@click.argument("folder", type=_FOLDER)
def status(folder: Path) -> None:
    """Show how far every run of a study is."""
    from simtui.follow import print_status

    print_status(_study_folder(folder))


@commands.command(**examples("simtui stop studies/isic2018", "simtui stop studies/isic2018 --now"))
@click.argument("folder", type=_FOLDER)
@click.option("--now", is_flag=True, help="At once: the epoch that each run is in is lost, and computed again later.")
def stop(folder: Path, now: bool) -> None:
    """Stop a study at the next epoch of each run; `simtui run` continues it."""
    from engine.jobs.launch import stop_study

    was_running = stop_study(_study_folder(folder), now=now).was_running
    when = "now" if now else "at the next epoch"
    click.echo(f"It stops {when}." if was_running else "It is not running.")


@commands.command(
    **examples(
        "simtui export studies/isic2018 forgetting -o forgetting.csv",
        "simtui export studies/isic2018 forgetting --by paradigm --format markdown",
        "simtui export studies/isic2018 heatmap --run full_seed03 --epoch 5 --pooling feat",
        "simtui export studies/isic2018 heatmap --run full_seed03 --measure debiased_cka --interval",
        "simtui export studies/isic2018 heatmap --run supervised_full_seed03 --beside supervised_scratch_seed03",
        "simtui export studies/isic2018 trajectory --layer blocks.11 --measure debiased_cka --probe origin",
        "simtui export studies/isic2018 space --eta 0.85 --epsilon 0.01 -o space.parquet",
        "simtui export studies/isic2018 correlation --metric test_ece --width 0.02 -o table.tex",
        "simtui export studies/isic2018 attention_map --run full_seed03 --image photo.jpg --head 2",
        names=TABLE_NAMES,
    )
)
@click.argument("folder", type=_FOLDER)
@click.argument("table", type=click.Choice(list(TABLE_NAMES)), metavar="TABLE")
@click.option("-o", "--output", type=_FOLDER, help="The file to write.  [default: standard output]")
@click.option(
    "--format",
    "file_format",
    type=_FORMAT,
    help="[default: by the file's name, .csv .tsv .md .tex .parquet; else csv]",
)
@click.option(
    "--digits", type=click.IntRange(1, 17), default=4, show_default=True, help="markdown, latex: significant."
)
@choices()
@click.pass_context
def export(
    context: click.Context,
    folder: Path,
    table: str,
    output: Path | None,
    file_format: str | None,
    digits: int,
    **chosen: Any,
) -> None:
    """Write a table of a study; notes on how to read it go to standard error.

    Beside a file that it writes, FILE.sources.json holds the options, the notes and the digests of what it was made
    from.
    """
    from engine.analysis.tables import table_of
    from engine.export import format_of, to_bytes, write_table
    from engine.sources import write_sources

    refuse_unused(context, table)
    study = _study_folder(folder)
    options = complete(chosen, study)
    file_format = file_format or (format_of(output) if output else "csv")
    if output is None and file_format == "parquet" and sys.stdout.isatty():
        raise StudyError("parquet", "is not for a terminal", "add -o FILE")
    found = table_of(study, table, options)
    for note in found.notes:
        click.echo(f"note: {safe(note)}", err=True)
    if output is None:
        sys.stdout.buffer.write(to_bytes(found, file_format, digits))
        return
    write_table(found, output, file_format, digits)
    write_sources(output, study, found, options)
    click.echo(f"wrote {len(found.rows)} rows to {safe(output)}", err=True)


@commands.command(
    **examples(
        "simtui figures studies/isic2018 -o paper/",
        "simtui figures studies/isic2018 -o paper/ --only 2 --only tables --eta 0.85 --epsilon 0.01",
        "simtui figures studies/isic2018 -o paper/ --only 3 --run full_seed03 --layer blocks.11 --format pdf",
    )
)
@click.argument("folder", type=_FOLDER)
@click.option("-o", "--output", type=_FOLDER, required=True, help="The folder to write into; made if missing.")
@click.option(
    "--only",
    type=click.Choice(list(FIGURE_NAMES)),
    multiple=True,
    help=f"{'; '.join(f'{name}: {says}' for name, says in FIGURE_NAMES.items())}.  [default: all]",
)
@choices("measure", "pooling", "probe", "layer", "metric", "eta", "epsilon", "run")
@click.option("--format", "formats", type=click.Choice(["pdf", "png"]), multiple=True, help="[default: both]")
@click.option("--dpi", type=click.IntRange(50, 1200), default=300, show_default=True, help="png: dots per inch.")
def figures(
    folder: Path, output: Path, only: tuple[str, ...], formats: tuple[str, ...], dpi: int, **chosen: Any
) -> None:
    """Draw the paper's figures and tables of a study, as PDF and PNG, each with its caption.

    What the study has nothing for is skipped, with the reason. Exit code 2 where nothing could be drawn.
    """
    from simtui.figures import report_figures

    study = _study_folder(folder)
    sys.exit(report_figures(study, output, complete(chosen, study, is_of_run=False), only, formats, dpi))


@commands.command(**examples("simtui demo", "simtui demo --out /tmp/demo --no-open"))
@click.option("--out", type=_FOLDER, default=Path("demo_study"), show_default=True, help="Folder of the demo.")
@click.option("--open/--no-open", "opens", default=True, help="Open the app at the end, where there is a terminal.")
def demo(out: Path, opens: bool) -> None:
    """Run a small study for real on this machine: generated images, the bundled backbones, a few minutes.

    Where there is no terminal, prints the tables instead of opening the app.
    """
    from simtui.demo import print_tables, run_demo

    study_path = run_demo(out)
    if opens and sys.stdin.isatty() and sys.stdout.isatty():
        _open([study_path])
    else:
        print_tables(study_path)


@commands.command(**examples("simtui verify studies/isic2018"))
@click.argument("folder", type=_FOLDER)
def verify(folder: Path) -> None:
    """Check every file of a study against its digest; changes nothing.

    Names each file that is not what was written, and the command that makes it again. Exit code 3 where there is one.
    """
    from simtui.upkeep import report_verify

    sys.exit(report_verify(_study_folder(folder)))


@commands.command(
    **examples(
        "simtui clean studies/isic2018", "simtui clean studies/isic2018 --also images --also 'reference activations'",
        "simtui clean studies/isic2018 --yes",
    )
)  # fmt: skip
@click.argument("folder", type=_FOLDER)
@click.option("--also", metavar="KIND", multiple=True, help="Free this too, though it costs something: see the list.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def clean(folder: Path, also: tuple[str, ...], yes: bool) -> None:
    """Show what of a study can be freed and what that costs; free it after asking.

    Without --also, only what no run needs: leftovers of killed processes, resume points of finished runs, activations
    and decoded images that nothing refers to.
    """
    from simtui.upkeep import report_clean

    sys.exit(report_clean(_study_folder(folder), also, asks=not yes))


@commands.command(
    **examples(
        "simtui data data/ISIC2018", "simtui data study.toml",
        "simtui data data/xray --label Finding --group patient_id --window 0,4095",
        "simtui data chestmnist_224.npz --backbone timm:vit_base_patch16_224.augreg_in21k",
        "simtui data data/imagenet-val --origin --json > imagenet.json",
    )
)  # fmt: skip
@click.argument("path", type=_FOLDER)
@click.option("--origin", "is_origin", is_flag=True, help="It is a set of the pre-training domain: no splits needed.")
@click.option("--backbone", metavar="NAME", help="Also measure it here, and estimate the time of an epoch.")
@click.option("--weights", type=_FOLDER, help="Local weights of the backbone.")
@click.option("--input-size", type=click.IntRange(16, 1024), help="Pixels.  [default: the backbone's, or 224]")
@click.option("--images", "n_images", type=click.IntRange(1), help="Decode only so many.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--layout", metavar="NAME", help="Force a layout.  [default: recognised]")
@click.option("--table", metavar="FILE", help="The table of labels in the folder.")
@click.option("--image", metavar="COLUMN", help="The column of paths or ids.")
@click.option("--label", metavar="COLUMN", multiple=True, help="The column of labels; several for one-hot or findings.")
@click.option("--group", metavar="COLUMN", help='What must stay in one split, such as patient_id; "" for nothing.')
@click.option("--split", metavar="COLUMN", help="The column of splits.")
@click.option("--task", type=click.Choice(["single", "ordinal", "multilabel"]), help="[default: seen from the labels]")
@click.option("--uncertain", type=_POLICY, help="What -1 of a finding counts as.  [default: ignore]")
@click.option("--blank", type=_POLICY, help="What an empty finding counts as.  [default: zeros]")
@reading_options
def data(
    path: Path,
    is_origin: bool,
    backbone: str | None,
    weights: Path | None,
    input_size: int | None,
    n_images: int | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Read a dataset and say what it is and every problem of it; writes nothing.

    PATH is the folder of a dataset, an .npz file of MedMNIST, or a study file, whose [data] section (with --origin its
    [origin]) is then taken. Each option is also a setting of that section. Exit code 2 where no study could start.
    """
    from simtui.dataset import report_data
    from simtui.dataset_options import options_of

    try:
        folder, options = options_of(path, given, is_origin=is_origin)
        code = report_data(
            folder,
            options,
            is_origin=is_origin,
            backbone=backbone,
            weights=weights,
            input_size=input_size,
            n_images=n_images,
            as_json=as_json,
        )
    except SimtuiError as error:
        if as_json:
            content = {"is_usable": False, "error": {"where": error.where, "problem": error.problem, "fix": error.fix}}
            click.echo(json.dumps(content, indent=2))
        raise
    sys.exit(code)


@commands.command(**examples("simtui keys", "simtui keys > keys.txt"))
def keys() -> None:
    """List what the app does at which key, by the name that each action has in a file of your own keys.

    That file gives actions other keys, one or several each; its path is printed at the end.
    """
    from simtui.actions import ALL, VIEWS
    from simtui.keymap import EXAMPLE, keys_path, read_keys, rekeyed

    path = keys_path()
    for action in rekeyed(read_keys(path)):
        where = "everywhere" if action.views == ALL else ", ".join(VIEWS[view] for view in action.views)
        click.echo(f"{action.id:<20}  {action.shown:<9}  {action.says}  ({where})")
    state = "holds yours" if path.exists() else "is not there yet; it could hold"
    click.echo(f"\n{safe(path)} {state}" + ("" if path.exists() else f":\n\n{EXAMPLE}"))


@commands.command(**examples("simtui doctor"))
def doctor() -> None:
    """Check terminal, libraries, devices, cached weights and disk; says how to mend what is wrong."""
    from simtui.doctor import report

    sys.exit(report())


def _study_folder(path: Path) -> StudyFolder:
    """The study at a path; the folder of a study *file* looks like one, and is not.

    Raises:
        StudyError: no study folder, or nothing has been run in it.
    """
    from engine.runs.study_folder import StudyFolder

    folder = StudyFolder(path)
    if not folder.runs_path.is_dir():
        made = [each.parent for pattern in ("*/runs", "*/*/runs") for each in sorted(path.glob(pattern))]
        fix = f"give {made[0]}" if made else f'start it: "simtui run {folder.study_file_path}"'
        raise StudyError(str(path), "holds a study file, but no study has been run in it", fix)
    return folder


def _open(
    studies: list[Path], images: str | None = None, first_view: str | None = None, is_remembered: bool = True
) -> None:
    from simtui.served import end_with_server, is_served

    for path in studies:
        _study_folder(path)
    if is_served():
        end_with_server()
    elif not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise StudyError(
            "standard output", 'needs a terminal; use "simtui export"', "run it in a terminal, or export a table"
        )
    else:
        for name in ("COLUMNS", "LINES"):  # left behind by a shell or readline, they hide the terminal's true size
            os.environ.pop(name, None)
    from simtui.app import SimtuiApp
    from simtui.keymap import keys_path, read_keys
    from simtui.recent import remember
    from simtui.remembered import Memory

    keymap = read_keys(keys_path())
    if is_remembered:
        remember(studies[0])
    gc.freeze()  # what is loaded stays: looking through it for garbage stops the keys for 60 ms, again and again
    app = SimtuiApp(studies, memory=Memory(), keymap=keymap, images=images, first_view=first_view)
    app.run()
    sys.exit(app.return_code)


def main() -> None:
    """The entry point: one message and an exit code for what is expected; a log with its path for what is not."""
    use_lookalikes()
    try:
        commands(standalone_mode=False)
    except SimtuiError as error:
        # Each part by itself: a file name in one may hold a line break.
        _fail(f"simtui: {safe(error.where)}: {safe(error.problem)}\n  fix: {safe(error.fix)}", error.exit_code)
    except click.Abort:
        _fail("stopped", 130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _fail("stopped", 130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe has gone, `head` for one: nothing is wrong
        sys.exit(0)
    except Exception:
        _fail(
            f"simtui: an unexpected error; its traceback is in {_log_traceback()}\n  fix: report it with that file", 70
        )


def _fail(message: str, exit_code: int) -> None:
    if sys.stderr.isatty():  # at words; what reads a pipe gets each part as one line
        width = shutil.get_terminal_size().columns
        # A path stays in one piece, to be copied.
        wrap = textwrap.TextWrapper(width, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False)
        message = "\n".join(line for each in message.split("\n") for line in wrap.wrap(each) or [each])
    click.echo(message, err=True)
    sys.exit(exit_code)


def _log_traceback() -> Path:
    from platformdirs import user_log_path

    path = user_log_path("simtui", ensure_exists=True) / "errors.log"
    logging.basicConfig(filename=path, format="%(asctime)s %(message)s")
    logging.error("%s", traceback.format_exc())
    return path


if __name__ == "__main__":
    main()
