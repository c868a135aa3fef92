"""The report as Markdown."""

from collections.abc import Iterator, Sequence

from consistentid.evaluation.report.tables import Table, formatted, group_table, headline_tables, meaning, region_table
from consistentid.evaluation.run import Evaluation
from consistentid.evaluation.scoring import Score


def markdown(evaluation: Evaluation) -> str:
    """Summary, tables with intervals, what is missing, and what every metric means."""
    tables = headline_tables(evaluation.scores)
    parts = [_summary(evaluation), *(_section(table) for table in tables)]
    regions = region_table(evaluation.scores)
    parts.append(_section(regions))
    groups = group_table(evaluation.scores)
    if groups.rows:
        parts.append(_section(groups))
    shown = dict.fromkeys(column for table in (*tables, regions, groups) for column in table.columns)
    parts.append("## What the columns mean\n\n" + "\n".join(_meanings(list(shown))))
    return "\n\n".join(parts) + "\n"


def _summary(evaluation: Evaluation) -> str:
    return f"# Evaluation of {evaluation.title}\n\n" + "\n".join(f"- {line}" for line in summary_lines(evaluation))


def summary_lines(evaluation: Evaluation) -> list[str]:
    """Who and what was judged, and everything that is missing, a sentence each."""
    people, wanted = len(evaluation.subjects), evaluation.protocol.subjects
    pictures = len({one.shot for block in evaluation.portraits.values() for one in block})  # blocks share portraits
    lines = [
        f"Protocol `{evaluation.config.protocol}`: {evaluation.protocol.about}.",
        f"{people} people, {pictures} portraits. Intervals are 95 % bootstraps over people; people are the unit.",
    ]
    if people < wanted:
        lines.append(f"**Fewer people than the protocol asks for: {people} of {wanted}.**")
    alone = sum(subject.other is None for subject in evaluation.subjects)
    if alone:
        lines.append(
            f"**{alone} people have one photo only: their portraits are compared with the photo they were made from.**"
        )
    lines += [f"Left out: {name} ({reason})." for name, reason in evaluation.excluded.items()]
    lines += [f"{count} portraits not measured: {reason}." for reason, count in evaluation.failures.items()]
    lines += [
        f"{seconds:.2f} s per portrait ({method})."
        for method, seconds in evaluation.seconds.items()
        if "=" not in method
    ]
    if evaluation.peak_bytes:
        lines.append(f"{evaluation.peak_bytes / 1e9:.2f} GB of memory at most.")
    return lines


def _section(table: Table) -> str:
    header = f"| | {' | '.join(table.columns)} |"
    rule = "|---" * (len(table.columns) + 1) + "|"
    rows = [f"| {name} | {' | '.join(map(_cell, scores))} |" for name, scores in table.rows]
    return f"## {table.title.capitalize()}\n\n" + "\n".join([header, rule, *rows])


def _cell(score: Score | None) -> str:
    value, note = formatted(score)
    return f"{value} ({note})" if note else value


def _meanings(metrics: Sequence[str]) -> Iterator[str]:
    for metric in metrics:
        text, better = meaning(metric)
        if text:
            yield f"- **{metric}**: {text}" + (f"; {better} is better." if better else ".")
