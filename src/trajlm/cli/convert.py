"""`trajlm convert SOURCE --to FORM FOLDER`: models to and from other projects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trajlm.cli import flags, tables
from trajlm.cli.logs import to_stderr
from trajlm.core.errors import UsageError

FORMS = ("huggingface", "trajlm")


@dataclass(frozen=True, kw_only=True)
class ConvertFlags:
    """Convert a model."""

    to: tuple[str, str] = ("", "")
    """The form, huggingface or trajlm, and the new folder."""
    data: str | None = None
    """What foreign weights do not carry (statistics of the states, or bins) comes from this dataset;
    of a Decision Transformer also from a JSON file with mean and std. Also --statistics-from."""
    return_scale: float | None = None
    """What a foreign Decision Transformer divided returns by; 1000 where not given, as published."""
    context_length: int | None = None
    """Steps that a foreign Decision Transformer is fed; 20 where not given, as published."""
    json: bool = False
    """Print JSON."""
    verbose: bool = False
    """Show details and tracebacks."""


def main(argv: Sequence[str]) -> int:
    source = Path(argv[0]) if argv and not argv[0].startswith("-") else None
    arguments = flags.parse(
        ConvertFlags,
        argv[1:] if source else argv,
        prog="trajlm convert",
        description=(
            "trajlm convert RUN --to huggingface FOLDER, or trajlm convert FOLDER_OR_WEIGHTS --to "
            "trajlm FOLDER --data DATASET. Weights in .pt and .bin files are read as "
            "tensors alone; nothing else in them is opened."
        ),
        aliases={"--statistics-from": "--data", "--statistics_from": "--data"},
    )
    if source is None:
        raise UsageError("no model; write trajlm convert RUN --to huggingface FOLDER")
    form, folder = arguments.to
    if form not in FORMS or not folder:
        raise UsageError(
            f"--to {form} {folder}: write --to {' FOLDER or --to '.join(FORMS)} FOLDER"
        )
    to_stderr(verbose=arguments.verbose)
    written = _convert(source, form, Path(folder), arguments)
    if arguments.json:
        tables.print_json({"form": form, "folder": str(written)})
    else:
        print(written)
    return 0


def _convert(source: Path, form: str, folder: Path, arguments: ConvertFlags) -> Path:
    from trajlm.convert import huggingface
    from trajlm.training.checkpoint import load_artefact, save_artefact

    if source.is_file() or huggingface.is_foreign(source):
        model = huggingface.import_model(
            source,
            data=arguments.data,
            context_length=arguments.context_length,
            return_scale=arguments.return_scale,
        )
    else:
        if arguments.return_scale is not None or arguments.context_length is not None:
            raise UsageError(f"--return-scale, --context-length: {source} has its own")
        model = load_artefact(source)
        if arguments.data is not None:
            model = huggingface.with_statistics(model, arguments.data)
    huggingface.warn_without_statistics(model, source)
    if form == "huggingface":
        return huggingface.export_model(model, folder)
    return save_artefact(model, folder)
