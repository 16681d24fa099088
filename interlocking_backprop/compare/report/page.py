"""report.html: one page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from interlocking_backprop.compare.report import formatting as f
from interlocking_backprop.compare.report import tables
from interlocking_backprop.compare.report.figures import theme
from interlocking_backprop.compare.report.figures.svg import inline_svg
from interlocking_backprop.compare.report.headline import caveats, headline
from interlocking_backprop.compare.report.pictures import KINDS, Picture
from interlocking_backprop.compare.report.summary import Panel, Summary
from interlocking_backprop.compare.report.table import Table


def page(summary: Summary, pictures: Sequence[Picture]) -> str:
    """Writes the page.

    Args:
        summary: what there is to say.
        pictures: that belong to it.
    """
    comparison = summary.comparison
    metric = f.Metric(comparison.metric, comparison.maximize)
    environment = {key: value for key, value in comparison.environment.items() if key != "command"}
    svgs: dict[str, list[Markup]] = {kind: [] for kind in KINDS}
    for picture in pictures:
        svgs[picture.kind].append(inline_svg(picture.figure, picture.name, picture.description))
    template = _environment(summary).from_string(_asset("page.html.j2"))
    return template.render(
        metric=metric,
        summary=summary,
        level=f.LEVEL,
        size=_size(summary),
        headline=headline(summary),
        caveats=caveats(summary),
        figures=svgs,
        unfinished=tables.unfinished_table(summary),
        results=[tables.results_table(panel, metric) for panel in summary.panels],
        exits=[tables.exits_table(panel, metric) for panel in summary.panels],
        baselines=_some(tables.baselines_table(panel, comparison.batch_size) for panel in summary.panels),
        profiles=_some(tables.profiles_table(panel) for panel in summary.panels),
        crossings=[text for panel in summary.panels if (text := crossing(panel))],
        clocks=_clocks(summary),
        tuned=tables.tuned_table(summary),
        same=None if not summary.runs else (summary.runs[0].lr, summary.runs[0].aux_lr_factor),
        runs=tables.runs_table(summary, metric),
        command=comparison.environment.get("command"),
        environment=environment,
        settings=comparison.settings,
        css=Markup(_asset("page.css")),
        js=Markup(_asset("page.js")),
        light=Markup(theme.css_variables(dark=False)),
        dark=Markup(theme.css_variables(dark=True)),
    )


def crossing(panel: Panel) -> str:
    """From how many micro-batches on a pipeline of e2e is faster than which scheme; empty without estimates."""
    rows = [row for row in panel.rows if row.estimate and not row.is_reference]
    tried = sorted({e.microbatches for sweep in panel.sweep.values() for e in sweep if e.scheme == "e2e"})
    if not rows or not tried:
        return ""
    parts = []
    for m in tried:
        names = [row.scheme for row in rows if row.overtaken_at == m]
        if names:
            parts.append(f"from M = {m} than {f.few(names, len(rows))}")
    never = [row.scheme for row in rows if row.overtaken_at is None]
    text = f"At K = {panel.components}, of the M that were tried for e2e ({', '.join(map(str, tried))}), "
    if parts:
        text += f"an e2e pipeline is faster {', '.join(parts)}"
        return text + (f", and never faster than {f.few(never, len(rows))}." if never else ".")
    return f"{text}no e2e pipeline is faster than {f.few(never, len(rows))}."


def _size(summary: Summary) -> str:
    """How much was compared."""
    ks = [str(panel.components) for panel in summary.panels]
    counts = [
        f.count(len(set(summary.comparison.schemes)), "scheme"),
        f"K = {f.few(ks, len(ks))}",
        f.count(len(set(summary.comparison.seeds)), "seed"),
        f"{len(summary.runs) - len(summary.unfinished)} of {f.count(len(summary.runs), 'run')} finished",
    ]
    return " · ".join(counts)


def _clocks(summary: Summary) -> list[str]:
    """Where the time of a scheme's curve is that of another pipeline than its own."""
    return [
        f"K = {row.components}: {row.scheme} as {row.clock.name}, M = {row.clock.microbatches}"
        for row in summary.rows
        if row.clock and row.clock.name != row.scheme
    ]


def _some(found: Iterable[Table | None]) -> list[Table]:
    return [table for table in found if table is not None]


def _environment(summary: Summary) -> Environment:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    marks = theme.marks(summary.comparison.schemes)

    def key(scheme: str) -> Markup:
        mark = marks.get(scheme)
        if mark is None:
            return Markup("")
        path = theme.marker_path(mark.marker, mark.size * 1.3)
        return Markup(
            f'<svg class="key" viewBox="-8 -8 16 16" aria-hidden="true">'
            f'<path d="{path}" style="fill: {theme.css_color(mark.color)}"/></svg>'
        )

    environment.globals["key"] = key
    environment.filters["setting"] = f.setting
    environment.filters["glue"] = f.glue
    return environment


def _asset(name: str) -> str:
    folder = resources.files("interlocking_backprop.compare.report") / "assets"
    return (folder / name).read_text(encoding="utf-8")
