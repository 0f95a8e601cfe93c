"""The rows of an evaluation's table, in the terminal and in the report."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from videogen_jax.metrics.published import MEASURES

PARTS = ("prompts", "temporal", "decoder", "autoencoder")
CONSISTENCY = {  # of `measure_consistency`: title in tables, unit, scale
    "warping_error": ("warping error, times 1000", "", 1000.0),
    "still_flicker": ("flicker of the background", "", 1.0),
    "reference_psnr": ("PSNR of frame 1 to the reference", " dB", 1.0),
    "reference_ssim": ("SSIM of frame 1 to the reference", "", 1.0),
}


class Row(NamedTuple):
    """One line: the part it belongs to, what was measured, its value, 95% interval ("" for none), and the count."""

    part: str
    name: str
    value: str
    interval: str
    count: str


def table_rows(metrics: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the rows of the parts that are in `metrics`, part by part."""

    def percent(title: str, tallies: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
        for name, tally in tallies.items():
            low, high = tally["interval"]
            yield f"{title}: {name}", f"{tally['fraction']:.1%}", f"{low:.1%} to {high:.1%}", str(tally["count"])

    def number(title: str, estimate: Any, unit: str, count: int | str) -> tuple[str, str, str, str]:
        if not isinstance(estimate, Mapping):
            return title, f"{estimate:.2f}{unit}", "", str(count)
        interval = ""
        if estimate["interval"] is not None:
            low, high = estimate["interval"]
            interval = f"{low:.2f} to {high:.2f}"
        return title, f"{estimate['value']:.2f}{unit}", interval, str(count)

    def rows(part: str, section: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
        if part == "prompts":
            for title in ("video", "reference", "video_of_right_reference"):
                yield from percent(title.replace("_", " "), section.get(title, {}))
            for name, mean in section.get("consistency", {}).items():
                title, unit, scale = CONSISTENCY[name]
                scaled = {"value": scale * mean["value"], "interval": [scale * end for end in mean["interval"]]}
                yield number(f"video: {title}", scaled, unit, mean["count"])
            for name, measured in section.get("published", {}).items():
                count = measured["count"] if "count" in measured else " to ".join(map(str, measured["counts"]))
                yield number(MEASURES[name].title, measured, "", count)
            return
        clips = section["settings"]["clips"]
        if part == "autoencoder":
            for side, psnr in section["psnr"].items():
                yield number(f"PSNR at {side}x{side}", psnr, " dB", clips)
            for way, tallies in section["read"].items():
                yield from percent(f"read, {way.replace('_', ' ')}", tallies)
            return
        for rate, of_rate in section.items():
            if rate == "settings":
                continue
            if part == "decoder":
                for name in ("image_decoder", "video_decoder"):
                    title = f"{rate} {name.replace('_', ' ')}"
                    yield number(f"{title}: PSNR", of_rate[name]["psnr"], " dB", clips)
                    yield number(f"{title}: flicker error", of_rate[name]["flicker"], "", clips)
                yield number(f"{rate} video - image: PSNR", of_rate["psnr_difference"], " dB", clips)
                yield number(f"{rate} video / image: flicker error", of_rate["flicker_ratio"], "", clips)
                continue
            for name, of_decoder in of_rate.items():
                title = f"{rate} {name.replace('_', ' ')}"
                yield number(f"{title}, PSNR: true latents", of_decoder["true_latents"], " dB", clips)
                for target, of_target in ((t, of_decoder[t]) for t in ("rendered", "decoded")):
                    for kind, psnr in of_target.items():
                        yield number(f"{title}, PSNR to {target}: {kind}", psnr, " dB", clips)

    for part in PARTS:
        if part in metrics:
            for row in rows(part, metrics[part]):
                yield Row(part, *row)
