"""Plots of an evaluation as SVG elements of a page, in the colours of the page's style sheet.

The same numbers yield the same text, at any time and on any machine with one version of Matplotlib.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

# Colours that are replaced by variables of the page, each with its fallback.
_INK, _QUIET = "#000001", "#000002"
_SERIES = ("#000003", "#000004", "#000005")
_VARIABLES = {
    _INK: "var(--ink, #1f1e1b)",
    _QUIET: "var(--quiet, #66635b)",
    _SERIES[0]: "var(--series-1, #0b7a6b)",
    _SERIES[1]: "var(--series-2, #b4540a)",
    _SERIES[2]: "var(--series-3, #5b52c4)",
}
_MARKERS = ("o", "s", "^")
_STYLE = {
    "font.size": 9,
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _QUIET,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "xtick.color": _QUIET,
    "ytick.color": _QUIET,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
    "grid.color": _QUIET,
    "grid.alpha": 0.3,
}


def plot_accuracies(series: Mapping[str, Mapping[str, Any]], name: str, description: str) -> str:
    """Plot fractions with their intervals, one line per attribute.

    Args:
      series: name -> attribute -> `tally`; at most 3.
      name, description: see `_svg`.
    """
    attributes = list(dict.fromkeys(attribute for tallies in series.values() for attribute in tallies))
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **_STYLE}):
        figure = Figure(figsize=(4.4, 0.7 + 0.42 * len(attributes)), layout="constrained")
        axes = figure.add_subplot()
        for number, (title, tallies) in enumerate(series.items()):
            present = [attribute for attribute in attributes if attribute in tallies]
            fractions = np.array([tallies[attribute]["fraction"] for attribute in present])
            low, high = np.array([tallies[attribute]["interval"] for attribute in present]).T
            axes.errorbar(
                fractions,
                [attributes.index(attribute) + 0.22 * (number - (len(series) - 1) / 2) for attribute in present],
                # By rounding an interval may end on the wrong side of its fraction.
                xerr=np.maximum([fractions - low, high - fractions], 0.0),
                fmt=_MARKERS[number],
                color=_SERIES[number],
                markersize=4.5,
                elinewidth=1.2,
                capsize=2,
                label=title,
            )
        axes.set_yticks(range(len(attributes)), [attribute.replace("_", " ") for attribute in attributes])
        axes.set_ylim(len(attributes) - 0.5, -0.5)
        axes.set_xlim(-0.02, 1.02)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        figure.legend(loc="outside upper left", ncols=len(series), handletextpad=0.2, columnspacing=1.0)
        return _svg(figure, name, description)


def plot_distribution(values: Sequence[float], label: str, name: str, description: str) -> str:
    """Plot a histogram over videos, with the single values below it and their median marked.

    Args:
      values: at least one.
      label: of the axis, with the unit.
      name, description: see `_svg`.
    """
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **_STYLE}):
        figure = Figure(figsize=(3.2, 2.0), layout="constrained")
        axes = figure.add_subplot()
        axes.hist(values, bins=min(20, max(5, round(len(values) ** 0.5))), color=_SERIES[0], alpha=0.55)
        axes.plot(values, np.zeros(len(values)), "|", color=_INK, markersize=8, clip_on=False)
        median = float(np.median(values))
        axes.axvline(median, color=_SERIES[1], linestyle="--", linewidth=1.2)
        axes.set_title(f"median {median:.2f}", fontsize=9, loc="right")
        axes.set_xlabel(label)
        axes.set_ylabel("videos")
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        return _svg(figure, name, description)


def _svg(figure: Figure, name: str, description: str) -> str:
    """Return the figure as an `svg` element.

    Args:
      name: prefix of the ids in it, unique on the page, of letters and digits.
      description: plain text for screen readers.
    """
    content = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(content, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = content.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="|url\()#', rf"\g<1>#{name}-", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    described = description.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace("<svg", f'<svg role="img" aria-label="{described}"', 1)
