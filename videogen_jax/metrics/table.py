"""The rows of an evaluation's table, as the terminal and the report show them."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from videogen_jax.metrics.published import MEASURES

PARTS = ("prompts", "temporal", "decoder", "autoencoder")
CONSISTENCY = {  # of `shapes_consistency`: what a table calls it, unit, scale
    "warping_error": ("warping error, times 1000", "", 1000.0),
    "still_flicker": ("flicker of the background", "", 1.0),
    "reference_psnr": ("PSNR of frame 1 to the reference", " dB", 1.0),
    "reference_ssim": ("SSIM of frame 1 to the reference", "", 1.0),
}


class Row(NamedTuple):
    """One line: the part it belongs to, what was measured, its value, 95% interval ("" for none), and of how many."""

    part: str
    name: str
    value: str
    interval: str
    count: str


def table_rows(metrics: Mapping[str, Any]) -> Iterator[Row]:
    """The rows of the parts that are in `metrics`, part by part; of a part those that were measured."""

    def percent(title: str, tallies: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
        for name, at in tallies.items():
            low, high = at["interval"]
            yield f"{title}: {name}", f"{at['fraction']:.1%}", f"{low:.1%} to {high:.1%}", str(at["count"])

    def number(title: str, at: Any, unit: str, count: int | str) -> tuple[str, str, str, str]:
        if isinstance(at, Mapping) and at["interval"] is None:
            return title, f"{at['value']:.2f}{unit}", "", str(count)
        if isinstance(at, Mapping):
            low, high = at["interval"]
            return title, f"{at['value']:.2f}{unit}", f"{low:.2f} to {high:.2f}", str(count)
        return title, f"{at:.2f}{unit}", "", str(count)

    def rows(part: str, section: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
        if part == "prompts":
            for title in ("video", "reference", "video_of_right_reference"):
                yield from percent(title.replace("_", " "), section.get(title, {}))
            for name, at in section.get("consistency", {}).items():
                title, unit, scale = CONSISTENCY[name]
                scaled = {"value": scale * at["value"], "interval": [scale * end for end in at["interval"]]}
                yield number(f"video: {title}", scaled, unit, at["count"])
            for name, at in section.get("published", {}).items():
                count = at["count"] if "count" in at else f"{at['counts'][0]} to {at['counts'][1]}"
                yield number(MEASURES[name].title, at, "", count)
            return
        clips = section["settings"]["clips"]
        if part == "autoencoder":
            for side, at in section["psnr"].items():
                yield number(f"PSNR at {side}x{side}", at, " dB", clips)
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
                    for kind, at in of_target.items():
                        yield number(f"{title}, PSNR to {target}: {kind}", at, " dB", clips)

    for part in PARTS:
        if part in metrics:
            for row in rows(part, metrics[part]):
                yield Row(part, *row)
