"""One HTML page from any number of run folders: `write_report`.

The page stands alone (no network, no script, no font of its own) and is the same to the byte for the same records: it
carries no date but theirs. All text in records is taken to be hostile; the template escapes it, `svg.element` escapes
it in figures, and the page forbids scripts besides.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jinja2

from ropewalk.atomic import remove_unfinished, write_text
from ropewalk.errors import OutputError, RecordError
from ropewalk.given import several
from ropewalk.reports.compare import loss_curves, panels, passkey_tables, turns, verdicts
from ropewalk.reports.dots import change_figures
from ropewalk.reports.figures import loss_figures, perplexity_figures, position_figures, wavelength_figures
from ropewalk.reports.heat import depth_figures, passkey_figures
from ropewalk.reports.measurements import described, measured, page_arms
from ropewalk.reports.provenance import input_rows, package_rows, protocols, record_rows, said, stages, warnings
from ropewalk.reports.questions import (
    definition_tables,
    gates,
    landmark_rows,
    other_rows,
    summary_notes,
    summary_rows,
    task_notes,
    task_rows,
)
from ropewalk.reports.sources import Sources, counted, sources
from ropewalk.reports.tables import results
from ropewalk.reports.wording import SPACE, duration, joined, percent, point_text, statement, title

TEMPLATE = "page.html.j2"


def write_report(runs: str | Path | Sequence[str | Path], out: str | Path) -> Path:
    """Leaves one HTML page at `out`, whole or not at all, and returns `out`.

    `runs` are folders that hold a record; a pipeline's folder brings its parts along. Raises RecordError when a folder
    holds no record or no record holds anything to show, OutputError when `out` exists or cannot be written.

    >>> import ropewalk
    >>> run = ropewalk.evaluate("pilot", lengths=[64], tasks=["perplexity"], max_tokens=512, out=folder / "measured")
    >>> write_report([folder / "measured"], folder / "page.html").name
    'page.html'
    """
    out = Path(out)
    if out.exists() or out.is_symlink():
        raise OutputError(
            f"{out} exists already.\n"
            "  A report is never written over another file.\n"
            "  Name another page with --out, or move this one away."
        )
    if not out.parent.is_dir():
        raise OutputError(
            f"cannot write {out}: the folder {out.parent} does not exist.\n"
            "  A report is one file in a folder that is there already.\n"
            "  Make the folder, or name another page with --out."
        )
    text = page(sources([Path(run) for run in several(runs)]))
    remove_unfinished(out.parent, out.name)
    write_text(out, text, new=True)
    return out


def page(found: Sources) -> str:
    """The page's HTML. Raises RecordError when there is nothing to show."""
    if not any(source.run.results or source.log for source in found.items):
        names = ", ".join(f"{source.name} ({source.run.command}, {source.run.status})" for source in found.items)
        raise RecordError(
            f"there is nothing to report, {counted(len(found.items), 'record')} without a result: {names or 'none'}.\n"
            "  A report shows what `ropewalk evaluate` measured and what `ropewalk tune` logged.\n"
            "  Give the folder of a finished evaluation, or evaluate the model first."
        )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(TEMPLATE).render(context(found))


def context(found: Sources) -> dict[str, Any]:
    """All that the template shows, by the name that it has there."""
    entries, clashes = measured(found.items)
    arms = page_arms(found.items, entries)
    shown = panels(described(found.items, arms, entries))
    return {
        "title": title(shown),
        "statement": statement(shown, entries),
        "warnings": warnings(found.items, entries, [*clashes, *found.notes]),
        "verdicts": verdicts(shown),
        "models": len({panel.name for panel in shown}) > 1,
        "perplexity": perplexity_figures(shown),
        "definitions": definition_tables(entries),
        "positions": position_figures(shown),
        "passkey": passkey_figures(passkey_tables(shown)),
        "near_start": passkey_figures(passkey_tables(shown, "passkey-near-start"), "prompts of up to"),
        "anywhere": depth_figures(entries),
        "landmark": landmark_rows(entries),
        "changes": change_figures(shown),
        "gates": gates(entries),
        "tasks": task_rows(entries),
        "task_notes": task_notes(entries),
        "summaries": summary_rows(entries),
        "summary_notes": summary_notes(entries),
        "loss": loss_figures(loss_curves(found.items, arms)),
        "wavelengths": wavelength_figures(shown, [turns(panel) for panel in shown]),
        "results": results(entries, found.items),
        "others": other_rows(entries),
        "said": partial(said, found.items),
        "protocols": protocols(found.items),
        "records": record_rows(found.items, arms),
        "inputs": input_rows(found.items),
        "packages": package_rows(found.items),
        "stages": stages(found.items),
        "point_text": point_text,
        "percent": percent,
        "duration": duration,
        "joined": joined,
        "space": SPACE,
    }
