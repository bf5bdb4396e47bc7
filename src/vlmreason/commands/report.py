"""Report a whole study: claims with their verdicts, every table and figure, examples of answers, the runs behind them.

`<out>/<study>-<scale>.html` is one page that holds everything and loads nothing; `<out>/<study>-<scale>.md` says the
same, with the pictures beside it as PNG and PDF for a paper. Nothing is trained: what is missing is listed, with the
command that makes it.

Examples:
  vlmreason report
  vlmreason report study=s2h scale=paper runs=outputs out=reports
  vlmreason report readme=README.md
  vlmreason report study=rl4vlm readme=docs/rl_results.md
"""

from __future__ import annotations

import datetime
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG = "report"
FORMATS = ("png", "pdf")


@dataclass(frozen=True)
class Settings:
    """The command's own keys; see conf/report.yaml."""

    study: str
    runs: str
    out: str
    readme: str | None


def run(cfg: dict[str, Any]) -> Path:
    """Write the report; returns the path of the page."""
    from vlmreason.commands import build, experiments
    from vlmreason.files import write_bytes_atomic, write_text_atomic
    from vlmreason.report.claims import insert, ledger
    from vlmreason.report.digest import digest
    from vlmreason.report.page import page

    own = build.settings(Settings, cfg)
    experiments.check_scale_words(sys.argv[2:])
    report = _report(own, build.build_scale(cfg).name)
    folder = Path(own.out)
    drawn = folder / "figures" / f"{report.name}-{report.scale}" / "examples"
    pictures = [drawn / f"{example.id}.png" for example in report.examples]
    for example, picture in zip(report.examples, pictures, strict=True):
        if example.picture:
            write_bytes_atomic(picture, example.picture)
    path = folder / f"{report.name}-{report.scale}.html"
    write_text_atomic(path, page(report))
    write_text_atomic(path.with_suffix(".md"), digest(report, folder, pictures))
    if own.readme:
        readme = Path(own.readme)
        write_text_atomic(readme, insert(readme.read_text(encoding="utf-8"), own.study, ledger(report.verdicts)))
    return path


def _report(own: Settings, scale: str) -> Any:
    """Everything there is to say (vlmreason.report.contents.Report). Raises ValueError."""
    from vlmreason.commands import build, experiments
    from vlmreason.report import claims, contents, drawing
    from vlmreason.report.examples import examples

    names = [name for name in experiments.names() if name.partition("/")[0] == own.study]
    if not names:
        known = ", ".join(experiments.studies(experiments.names()))
        raise ValueError(f"study={own.study}: no such study; there are {known}")
    study, library = experiments.read_study(own.study), experiments.Library(scale, [own.study], Path(own.runs))
    results = [experiments.collect(name, scale, library) for name in names]
    results.sort(key=lambda result: contents.paper_order(result.experiment.place))
    path, by_name = experiments.folder() / own.study / "claims.yaml", {result.name: result for result in results}
    found = claims.read_claims(path) if path.exists() else ()
    figures = Path(own.out) / "figures" / f"{own.study}-{scale}"
    artifacts = []
    for result in results:
        name = result.name.partition("/")[2]
        files = drawing.draw(
            result,
            study.styles,
            library.records,
            figures / name,
            FORMATS,
            lambda record: build.build_task(record.config),
        )
        artifacts.append(contents.Artifact(result, tuple(files)))
    used = contents.users(results)
    faults, records = list(library.faults), []
    for record in {record.run: record for record in library.records if record.run in used}.values():
        try:
            contents.check(record)
            records.append(record)
        except ValueError as error:
            faults.append(str(error))
    return contents.Report(
        name=own.study,
        study=study,
        scale=scale,
        time=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=_version(),
        verdicts=tuple(claims.judge(claim, by_name) for claim in found),
        artifacts=tuple(artifacts),
        records=tuple(records),
        others=tuple(dict.fromkeys(record.run for record in library.records if record.run not in used)),
        examples=tuple(
            examples(
                contents.representatives(records, used),
                lambda record, evaluation: build.evaluated_task(evaluation.identity, record.path, record.config),
            )
        ),
        faults=tuple(faults),
    )


def _version() -> str:
    """The commit that this runs from, as records name theirs; the version of an installed package."""
    import vlmreason
    from vlmreason import provenance

    source = provenance.source()
    return f"{source['commit'][:12]}{'+' if source['dirty'] else ''}" if source["commit"] else vlmreason.__version__
