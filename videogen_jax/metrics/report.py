"""An evaluation as one HTML page that needs no other file: the table, plots, and videos, failures first.

The page is a function of the folder alone, without a date: the same folder yields the same page.
"""

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from videogen_jax.data.world import Evaluation
from videogen_jax.metrics.cases import Record, add_expected, confusion
from videogen_jax.metrics.generated_videos import GeneratedVideos
from videogen_jax.metrics.page_elements import scrolling_table
from videogen_jax.metrics.plots import plot_accuracies, plot_distribution
from videogen_jax.metrics.published import MEASURES
from videogen_jax.metrics.report_videos import videos_section
from videogen_jax.metrics.table import CONSISTENCY, PARTS, Row, table_rows
from videogen_jax.metrics.worlds import WORLD_NAMES
from videogen_jax.runtime.files import write_atomically

_TALLIES = {
    "video": "video",
    "reference": "reference",
    "video_of_right_reference": "video, right reference",
}
_DISTRIBUTIONS = ("warping_error", "still_flicker", "reference_psnr")


def read_metrics(path: str | os.PathLike) -> dict[str, Any]:
    """Read the `metrics.json` of an evaluation. ValueError: it is no such file, or there is none."""
    try:
        metrics = json.loads(Path(path).read_text(encoding="utf-8"))
        if not all(name in metrics for name in ("model", "fingerprint", "split")):
            raise ValueError("it does not name model, fingerprint and split")
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is no metrics.json of an evaluation ({error})") from error
    return metrics


def write_report(
    folder: str | os.PathLike, world: Evaluation | None, videos: int = 4, beside: str | os.PathLike = ""
) -> Path:
    """Write `report.html` of the evaluation in `folder`, and return its path.

    Args:
      folder: with `metrics.json`, and `videos` as `GeneratedVideos` has them. The page names videos that are missing.
      world: of the prompts; None for captions of real videos.
      videos: how many failures, and how many of the best, are shown of an attribute, at most.
      beside: `metrics.json` of another evaluation, whose numbers stand beside these in the table and the plots; "" for
        none.

    Raises:
      ValueError: a `metrics.json` is missing or is none.
    """
    folder = Path(folder)
    page = _page(
        read_metrics(folder / "metrics.json"),
        GeneratedVideos(folder / "videos"),
        world,
        videos,
        read_metrics(beside) if beside else None,
    )
    path = folder / "report.html"
    write_atomically(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return path


def _page(
    metrics: Mapping[str, Any],
    generated: GeneratedVideos,
    world: Evaluation | None,
    videos: int,
    beside: Mapping[str, Any] | None,
) -> str:
    prompts = metrics.get("prompts", {})
    results = prompts.get("results", [])
    judged = add_expected(results, world) if world else []
    sections = {
        "results": ("Results", _results(metrics, beside)),
        "not-measured": ("Not measured", _not_measured(metrics)),
        "attributes": ("Attributes", _accuracies(prompts, beside) + (_confusions(judged, world) if world else "")),
        "distributions": ("Distributions over videos", _distributions(results, world.subject if world else "")),
        "videos": ("Videos", videos_section(results, judged, generated, videos)),
        "settings": ("Settings", _settings(metrics)),
    }
    sections = {name: (title, content) for name, (title, content) in sections.items() if content}
    style, script = (
        resources.files(__package__).joinpath(name).read_text(encoding="utf-8") for name in ("report.css", "report.js")
    )
    # The browser holds the page to what it promises: nothing is fetched, and no script runs but the one here.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )
    title = f"Evaluation of {escape(metrics['model'])}, {escape(metrics['split'])} captions"
    links = "".join(f'<a href="#{name}">{title}</a>' for name, (title, _) in sections.items())
    body = "".join(
        f'<section id="{name}"><h2>{title}</h2>\n{content}</section>\n' for name, (title, content) in sections.items()
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{style}</style></head>\n<body><header><h1>{title}</h1>\n"
        f'{_identity(metrics)}<nav aria-label="Sections">{links}</nav></header>\n<main>\n{body}</main>\n'
        f"{f'<script>{script}</script>' if 'videos' in sections else ''}\n</body></html>\n"
    )


def _identity(metrics: Mapping[str, Any]) -> str:
    versions = metrics.get("versions", {})
    facts = {
        "model": metrics["model"],
        "fingerprint": metrics["fingerprint"],
        "captions and clips": f"split {metrics['split']}",
        "computed in": metrics.get("dtype", ""),
        "versions": ", ".join(f"{name} {value}" for name, value in versions.items()),
    }
    all_right = metrics.get("prompts", {}).get("video", {}).get("all")
    summary = ""
    if all_right:
        low, high = all_right["interval"]
        summary = (
            f"<p>{all_right['right']} of {all_right['count']} videos ({all_right['fraction']:.1%}, 95% interval "
            f"{low:.1%} to {high:.1%}) show everything that their prompts say.</p>\n"
        )
    listed = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts.items() if value)
    return f"{summary}<dl>{listed}</dl>\n"


def _results(metrics: Mapping[str, Any], beside: Mapping[str, Any] | None) -> str:
    rows = {row[:2]: row for row in table_rows(metrics)}
    if not rows:
        return "<p>Nothing has been measured.</p>\n"
    columns = ["value", "95% interval", "count"]
    caption = "Everything that was measured. A fraction's interval is Wilson's, a mean's is bootstrapped."
    others: dict[tuple[str, str], Row] = {}
    if beside is not None:
        others = {row[:2]: row for row in table_rows(beside)}
        columns += [f"{name}, beside" for name in columns]
        caption += (
            f" Beside: {beside['model']}, split {beside['split']}, fingerprint {beside['fingerprint']}"
            f"{' (the same model)' if beside['fingerprint'] == metrics['fingerprint'] else ''}."
        )
    bodies = []
    for part in PARTS:
        lines = []
        for key in dict.fromkeys(key for key in (*rows, *others) if key[0] == part):
            numbers = [table[key][2:] if key in table else ("", "", "") for table in (rows, others)]
            cells = numbers[0] if beside is None else (*numbers[0], *numbers[1])
            tds = "".join(f'<td class="number">{escape(cell).replace(" to ", " to&nbsp;")}</td>' for cell in cells)
            lines.append(f'<tr><th scope="row">{escape(key[1])}</th>{tds}</tr>\n')
        if lines:
            title = f'<tr><th scope="rowgroup" colspan="{1 + len(columns)}">{part}</th></tr>\n'
            bodies.append(f"<tbody>{title}{''.join(lines)}</tbody>")
    return scrolling_table("Results", escape(caption), ("measured", *columns), "".join(bodies))


def _not_measured(metrics: Mapping[str, Any]) -> str:
    prompts = metrics.get("prompts", {})
    items = [
        f"{escape(MEASURES[name].title if name in MEASURES else name)}: {escape(what)}"
        for name, what in prompts.get("not_measured", {}).items()
    ]
    missing = [part for part in PARTS if part not in metrics]
    if prompts and "video" not in prompts:
        items.insert(0, f"whether videos show what their prompts say: only captions of {WORLD_NAMES} can be checked")
    elif missing:
        quoted = ", ".join(f'"{part}"' for part in missing) + ("," if len(missing) == 1 else "")
        items.append(f"{', '.join(missing)}: pass <code>--config.parts='({quoted})'</code>")
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>\n" if items else ""


def _accuracies(prompts: Mapping[str, Any], beside: Mapping[str, Any] | None) -> str:
    plots = []
    sides = {"accuracies": ("", prompts)}
    if beside is not None:
        sides["beside"] = (f"Beside: {beside['model']}, split {beside['split']}. ", beside.get("prompts", {}))
    for name, (prefix, section) in sides.items():
        series = {title: section[key] for key, title in _TALLIES.items() if section.get(key)}
        if series:
            caption = (
                f"{prefix}Fraction of videos, or of reference images, in which each attribute is read as the prompt "
                "says, with Wilson's 95% interval; the numbers are in the table of results."
            )
            plot = plot_accuracies(series, name, f"{prefix}Plot of the fractions of {', '.join(series)} by attribute")
            plots.append(f'<figure class="plot">{plot}<figcaption>{escape(caption)}</figcaption></figure>\n')
    return f'<div class="plots wide">{"".join(plots)}</div>\n' if plots else ""


def _confusions(judged: Sequence[Record], world: Evaluation) -> str:
    tables = [_confusion_table(judged, attribute, values) for attribute, values in world.attributes.items()]
    if not any(tables):
        return ""
    return (
        "<h3>What was read in place of what was said</h3>\n"
        "<p>Numbers of videos. Framed cells are those in which the video shows what its prompt says.</p>\n"
        f'<div class="tables">{"".join(tables)}</div>\n'
    )


def _confusion_table(judged: Sequence[Record], attribute: str, values: Sequence[str]) -> str:
    counts = confusion(judged, attribute)
    if not counts:
        return ""
    present = [value for value in values if any(value in pair for pair in counts)]
    rows = [value for value in present if any(expected == value for expected, _ in counts)]
    columns = [*present, *([None] if any(read is None for _, read in counts) else [])]
    title = attribute.replace("_", " ")
    lines = []
    for expected in rows:
        of_row = sum(count for (value, _), count in counts.items() if value == expected)
        cells = []
        for read in columns:
            count = counts[expected, read]
            kind = "right" if expected == read else "wrong" if count else "none"
            cells.append(f'<td class="{kind}" style="--share: {round(60 * count / of_row)}%">{count}</td>')
        lines.append(f'<tr><th scope="row">{expected}</th>{"".join(cells)}</tr>\n')
    return scrolling_table(
        f"Confusion of {title}",
        f"<b>{title}</b>: said (rows), read in the video (columns)",
        ("", *(value or "nothing" for value in columns)),
        f"<tbody>{''.join(lines)}</tbody>",
        "confusion",
    )


def _distributions(results: Sequence[Record], subject: str) -> str:
    figures = []
    for name in _DISTRIBUTIONS:
        title, unit, scale = CONSISTENCY[name]
        values = [record.get("consistency", {}).get(name) for record in results]
        measured = [scale * value for value in values if value is not None]
        if not measured:
            continue
        caption = f"{title}, of {len(measured)} of {len(values)} videos."
        if len(measured) < len(values):
            caption += f" In the others no {subject} was seen, or the frames are too small."
        label = f"{title} [{unit.strip()}]" if unit else title
        identifier = name.replace("_", "")
        plot = plot_distribution(measured, label, identifier, f"Histogram: {caption}")
        figures.append(f"<figure>{plot}<figcaption>{escape(caption)}</figcaption></figure>\n")
    if not figures:
        return ""
    return (
        "<p>Bars count videos, each stroke at the foot is one video, the dashed line is the median.</p>\n"
        f'<div class="plots">{"".join(figures)}</div>\n'
    )


def _settings(metrics: Mapping[str, Any]) -> str:
    settings = {
        "Of each part, as in the config": {
            part: metrics[part]["settings"] for part in PARTS if metrics.get(part, {}).get("settings")
        },
        "The real clips that distances are to": metrics.get("prompts", {}).get("real"),
    }
    texts = {title: escape(json.dumps(values, indent=2), quote=False) for title, values in settings.items() if values}
    return "".join(
        f"<details><summary>{title}</summary><pre><code>{text}</code></pre></details>\n"
        for title, text in texts.items()
    )
