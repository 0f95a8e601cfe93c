"""What the machine allows: each program of sample.py and train.py beside the least time it could take here.

    python benchmarks/sample.py --batch 1 --output sample.json
    python benchmarks/train.py --output train.json
    python benchmarks/roofline.py sample.json train.json [--output roofline.json]

The least time is the longer of two: that of the FLOPs at the rate of the machine's own float32 matrix products, and
that of the bytes that must move, parameters, inputs and results, at the bandwidth of a copy. XLA's own "bytes accessed"
(each operation's operands and results, loops taken once) stands beside: what fusing and the caches save of it is open.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platforms
from measured import median
from side_by_side import machine, write_json

from videogen_jax.runtime.host_memory import keep_freed_memory


def programs_of(figures: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and figures of each program in what sample.py or train.py wrote."""
    for run in figures.get("runs", ()):
        for name, program in run["programs"].items():
            yield f"{name}, batch {run['batch']}", program
    for step in figures.get("steps", ()):
        yield f"train {step['config'].removeprefix('configs/')}", step


def bound(program: dict[str, Any], allowed: dict[str, float]) -> tuple[float, str]:
    """Seconds at least, and which of the two it is that takes them."""
    computing = program["flops"] / allowed["gflops"] / 1e9
    moving = program["least_bytes"] / allowed["gigabytes"] / 1e9
    return max((computing, "products"), (moving, "bytes"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    platforms.add_platform(parser)
    parser.add_argument("figures", nargs="+", help=".json files that sample.py and train.py wrote, on this machine")
    parser.add_argument("--least", type=float, default=0.002, help="seconds; shorter programs are not shown")
    parser.add_argument("--output", help="a .json file for the figures")
    asked = parser.parse_args()
    keep_freed_memory(one_heap=True)  # as training does: a copy into pages that are yet to be mapped is another thing
    allowed = machine()
    print(f"matrix products {allowed['gflops']:.0f} GFLOP/s, copies {allowed['gigabytes']:.1f} GB/s")
    print(f"{'':<36}{'GFLOP':>9}{'MB least':>10}{'MB, XLA':>10}{'least s':>9}{'took s':>9}{'times':>7}  bound by")
    rows = {}
    for path in asked.figures:
        for name, program in programs_of(json.loads(Path(path).read_text())):
            took = median(program["seconds"][1:] or program["seconds"])
            least, by = bound(program, allowed)
            rows[name] = {"least_seconds": least, "bound_by": by, "seconds": took, "ratio": took / least}
            if took < asked.least:
                continue
            theirs = "-" if program["xla_bytes"] is None else f"{program['xla_bytes'] / 1e6:.1f}"
            print(
                f"{name:<36}{program['flops'] / 1e9:9.3f}{program['least_bytes'] / 1e6:10.1f}{theirs:>10}"
                f"{least:9.4f}{took:9.4f}{took / least:7.1f}  {by}"
            )
    write_json(asked.output, {"machine": allowed, "programs": rows})


if __name__ == "__main__":
    main()
