"""The videos in an evaluation's report: for each attribute failures, then the best, each video once."""

import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from videogen_jax.metrics.cases import Record, choose_cases, wrong_attributes
from videogen_jax.metrics.generated_videos import GeneratedVideos
from videogen_jax.metrics.page_elements import data_url, scrolling_table
from videogen_jax.metrics.table import CONSISTENCY
from videogen_jax.video_io import read_video

_STRIP_FRAMES, _STRIP_HEIGHT = 6, 128  # at most


def videos_section(results: Sequence[Record], judged: Sequence[Record], generated: GeneratedVideos, limit: int) -> str:
    """Return HTML of the cases that `choose_cases` chooses, or where none are judged of the first `limit` videos.

    Args:
      results: as `metrics.json` has them under `prompts.results`.
      judged: those that have readings, see `add_expected`.
    """
    if not results:
        return ""
    missing = [record["key"] for record in results if not generated.has(record["key"])]
    parts = ['<p><button id="play" type="button" hidden>Play all videos</button></p>\n']
    if missing:
        name = generated.folder.name
        parts.append(
            f'<div class="notice"><p><b>{len(missing)} of {len(results)} videos or their reference images are missing'
            f"</b> in the folder {escape(name)}: they were removed, or made by a version that did not keep them. The "
            "numbers are of all videos all the same. To have the videos made again, remove prompts.jsonl and evaluate "
            f"again.</p><details><summary>Which</summary><p><code>{escape(', '.join(missing))}</code></p></details>"
            "</div>\n"
        )
    shown: set[str] = set()
    if not judged:
        parts.append(f"<p>The first {min(limit, len(results))} of {len(results)}.</p>\n")
        parts.append(_group("", results[:limit], None, generated, shown))
    else:
        parts.append("<p>Of each attribute failures, then the best; the attribute that fails most comes first.</p>\n")
    for cases in choose_cases(judged, limit):
        title = cases.attribute.replace("_", " ")
        parts.append(f"<h3>{title.capitalize()}: wrong in {cases.wrong} of {cases.count} videos</h3>\n")
        number = f"{len(cases.failures)} of {cases.wrong}" if len(cases.failures) < cases.wrong else "all"
        parts.append(_group(f"Failures ({number})", cases.failures, cases.attribute, generated, shown))
        parts.append(_group("Best", cases.best, cases.attribute, generated, shown))
    if judged:
        parts.append(_list_of_all(judged, shown))
    return "".join(parts)


def _group(
    title: str, records: Sequence[Record], attribute: str | None, generated: GeneratedVideos, shown: set[str]
) -> str:
    """Return records under a heading, if any: those without a card as cards, the others as links to their cards."""
    if not records:
        return ""
    cards, links = [], []
    for record in records:
        if record["key"] in shown:
            link = f'<a href="#case-{record["key"]}">{escape(record["prompt"])} (seed {record["seed"]})</a>'
            links.append(f"<li>{link}{_of(record, attribute)}</li>")
        else:
            shown.add(record["key"])
            cards.append(_card(record, attribute, generated))
    result = f"<h4>{escape(title)}</h4>\n" if title else ""
    if cards:
        result += f'<div class="cases">{"".join(cards)}</div>\n'
    if links:
        result += f"<p>Shown above already:</p><ul>{''.join(links)}</ul>\n"
    return result


def _of(record: Record, attribute: str | None) -> str:
    """Return what the case is an example of."""
    if attribute is None:
        return ""
    expected, read = record["expected"][attribute], record["read"][attribute] or "nothing"
    return f": {escape(expected)}" if expected == read else f": said {escape(expected)}, <b>read {escape(read)}</b>"


def _card(record: Record, attribute: str | None, generated: GeneratedVideos) -> str:
    key = record["key"]
    example = f"<p>{attribute.replace('_', ' ')}{_of(record, attribute)}</p>\n" if attribute else ""
    level = "h5" if attribute else "h3"
    return (
        f'<article id="case-{key}"><{level}>{escape(record["prompt"])}</{level}>\n{example}'
        f"{_media(record, generated)}{_readings(record)}{_numbers(record)}</article>\n"
    )


def _media(record: Record, generated: GeneratedVideos) -> str:
    key, name, prompt = record["key"], generated.folder.name, escape(record["prompt"])
    missing, video, strip, reference = [], "", "", ""
    path = generated.video(key)
    try:
        frames, fps = read_video(path)
    except ValueError:
        missing.append(f"The video {name}/{path.name} {'cannot be read' if path.exists() else 'is missing'}.")
    else:
        height, width = frames.shape[1:3]
        video = (
            f'<figure><video controls loop muted playsinline preload="metadata" width="{width}" height="{height}" '
            f'aria-label="Video of: {prompt}" poster="{_jpeg(frames[0])}" '
            f'src="{data_url("video/mp4", path.read_bytes())}"></video>'
            f"<figcaption>video, {len(frames)} frames, {len(frames) / fps:.1f} s</figcaption></figure>"
        )
        chosen = np.unique(np.rint(np.linspace(0, len(frames) - 1, _STRIP_FRAMES)).astype(int))
        strip = (
            f'<img class="strip" alt="{len(chosen)} frames of the video, from the first to the last" '
            f'src="{_jpeg(np.concatenate([_small(frames[k]) for k in chosen], axis=1))}">\n'
        )
    path = generated.reference(key)
    if path.is_file():
        read = ", ".join(f"{name} {value or 'nothing'}" for name, value in record.get("reference_read", {}).items())
        suffix = escape(f"; read: {read}") if read else ""
        reference = (
            f'<figure><img alt="Reference image of: {prompt}{suffix}" '
            f'src="{data_url("image/png", path.read_bytes())}"><figcaption>reference image</figcaption></figure>'
        )
    else:
        missing.append(f"The reference image {name}/{path.name} is missing.")
    media = f'<div class="media">{video}{reference}</div>\n' if video or reference else ""
    return media + strip + "".join(f'<p class="notice">{escape(text)}</p>' for text in missing)


def _readings(record: Record) -> str:
    """Return a table of what the prompt says beside what was read, attribute by attribute."""
    if "expected" not in record:
        return ""
    lines = []
    for attribute in record["right"]:
        cells = [f"<td>{escape(record['expected'][attribute])}</td>"]
        for read, right in (("read", "right"), ("reference_read", "reference_right")):
            if attribute not in record.get(right, {}):
                cells.append("<td>-</td>")
                continue
            value = escape(record[read][attribute] or "nothing")
            is_right = record[right][attribute]
            cells.append(f"<td>✓&nbsp;{value}</td>" if is_right else f'<td class="wrong">✗&nbsp;wrong: {value}</td>')
        lines.append(f'<tr><th scope="row">{attribute.replace("_", " ")}</th>{"".join(cells)}</tr>\n')
    return scrolling_table(
        f"Readings, video {record['key']}",
        "What the prompt says and what was read",
        ("", "said", "in the video", "in the reference"),
        f"<tbody>{''.join(lines)}</tbody>",
    )


def _numbers(record: Record) -> str:
    facts = {"video": record["key"], "seed": str(record["seed"])}
    if "id" in record:  # of a caption of real videos
        facts["caption"] = record["id"]
    for name, (title, unit, scale) in CONSISTENCY.items():
        value = record.get("consistency", {}).get(name)
        if value is not None:
            facts[title] = f"{scale * value:.2f}{unit}"
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{escape(value)}</dd>' for name, value in facts.items())}</dl>\n"


def _list_of_all(results: Sequence[Record], shown: set[str]) -> str:
    lines = []
    for record in results:
        key = record["key"]
        name = f'<a href="#case-{key}">{key}</a>' if key in shown else key
        wrong = ", ".join(wrong_attributes(record)).replace("_", " ")
        measured = [record.get("consistency", {}).get(measure) for measure in CONSISTENCY]
        scales = [scale for _, _, scale in CONSISTENCY.values()]
        numbers = ["" if x is None else f"{scale * x:.2f}" for x, scale in zip(measured, scales, strict=True)]
        cells = "".join(f'<td class="number">{value}</td>' for value in (record["seed"], *numbers))
        texts = f"<td>{escape(record['prompt'])}</td><td>{wrong or '-'}</td>"
        lines.append(f'<tr><th scope="row">{name}</th>{texts}{cells}</tr>\n')
    titles = [f"{title}{f',{unit}' if unit else ''}" for title, unit, _ in CONSISTENCY.values()]
    table = scrolling_table(
        "All videos",
        "All videos; those that are shown above are links",
        ("video", "prompt", "wrong", "seed", *titles),
        f"<tbody>{''.join(lines)}</tbody>",
    )
    return f"<details><summary>All {len(results)} videos in numbers</summary>{table}</details>\n"


def _small(frame: np.ndarray) -> np.ndarray:
    """Reduce a frame to at most _STRIP_HEIGHT, in proportion."""
    if len(frame) <= _STRIP_HEIGHT:
        return frame
    size = round(frame.shape[1] * _STRIP_HEIGHT / len(frame)), _STRIP_HEIGHT
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))


def _jpeg(image: np.ndarray) -> str:
    content = io.BytesIO()
    Image.fromarray(image).save(content, format="JPEG", quality=88, subsampling=0)
    return data_url("image/jpeg", content.getvalue())
