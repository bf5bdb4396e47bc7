"""Report a whole study: claims with their verdicts, every table and figure, examples of answers, the runs behind them.

`<out>/<study>-<scale>.html` is one page that holds everything and loads nothing; `<out>/<study>-<scale>.md` says the
same, with the pictures beside it; formats=[png,pdf] adds those for a paper. Nothing is trained: what is missing is
listed, with the command that makes it.

Examples:
  vlmreason report
  vlmreason report study=s2h scale=paper runs=outputs out=reports formats=[png,pdf]
  vlmreason report study=rl4vlm readme=experiments/rl4vlm/LEDGER.md
"""

from __future__ import annotations

import datetime
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

CONFIG = "report"


@dataclass(frozen=True)
class Settings:
    """The command's own keys; see conf/report.yaml."""

    study: str
    runs: str
    out: str
    formats: tuple[Literal["png", "pdf", "svg"], ...]
    readme: str | None

    def __post_init__(self) -> None:
        if "png" not in self.formats:
            raise ValueError(f"formats={list(self.formats)}: png is on the page and must be one of them")


def run(cfg: dict[str, Any]) -> Path:
    """Write the report; returns the path of the page."""
    from vlmreason.assembly import build, compose
    from vlmreason.files import write_bytes_atomic, write_text_atomic
    from vlmreason.report.ledger import insert, ledger
    from vlmreason.report.pages.markdown import digest
    from vlmreason.report.pages.study import page

    own = build.settings(Settings, cfg)
    compose.check_scale_words(sys.argv[2:])
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
    """Everything there is to say (vlmreason.report.pages.content.Report). Raises ValueError."""
    from vlmreason.assembly import build, planning
    from vlmreason.report.figures import kept
    from vlmreason.report.pages import content
    from vlmreason.report.pages.examples import examples
    from vlmreason.studies import artifacts, claims
    from vlmreason.studies.library import collect

    names = [name for name in artifacts.names() if name.partition("/")[0] == own.study]
    if not names:
        known = ", ".join(artifacts.studies(artifacts.names()))
        raise ValueError(f"study={own.study}: no such study; there are {known}")
    study, library = artifacts.read_study(own.study), planning.open_library(scale, [own.study], Path(own.runs))
    results = [collect(name, scale, library, {}) for name in names]
    results.sort(key=lambda result: content.paper_order(result.experiment.place))
    path, by_name = artifacts.folder() / own.study / "claims.yaml", {result.name: result for result in results}
    found = claims.read_claims(path) if path.exists() else ()
    if price := planning.price_of_missing(results, library, {}):
        print(price, file=sys.stderr)
    figures = Path(own.out) / "figures" / f"{own.study}-{scale}"
    drawn = []
    for place, result in enumerate(results):
        planning.show_progress("drawing", place, len(results))
        name = result.name.partition("/")[2]
        files = kept.draw(
            result,
            study.styles,
            library.records,
            figures / name,
            own.formats,
            lambda record: build.build_task(record.config),
        )
        drawn.append(content.Artifact(result, tuple(files)))
    used = content.users(results)
    faults, records = list(library.faults), []
    for record in {record.run: record for record in library.records if record.run in used}.values():
        try:
            content.check(record)
            records.append(record)
        except ValueError as error:
            faults.append(str(error))
    return content.Report(
        name=own.study,
        study=study,
        scale=scale,
        time=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=_version(),
        verdicts=tuple(claims.judge(claim, by_name) for claim in found),
        artifacts=tuple(drawn),
        records=tuple(records),
        others=tuple(dict.fromkeys(record.run for record in library.records if record.run not in used)),
        examples=tuple(
            examples(
                content.representatives(records, used),
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
