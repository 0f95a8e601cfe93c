"""Specifications of TPU chips, and the roofline lower bound on the time of a step."""

import dataclasses
import math
import re

GB, GIB = 10**9, 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """A kind of TPU chip.

    Attributes:
      name: as in a topology, for example `v5e`.
      flops: peak bfloat16 FLOP/s.
      memory: bytes of HBM.
      memory_bandwidth: bytes/s between HBM and the chip.
      link_bandwidth: bytes/s in one direction of one link between neighbouring chips.
      dimensions: of the torus; a chip has two links along each.
      source: Google's documentation of these numbers.
    """

    name: str
    flops: float
    memory: int
    memory_bandwidth: float
    link_bandwidth: float
    dimensions: int
    source: str


# Google states the interconnect bandwidth for all links of a chip and both directions: 400, 1200 and 800 GB/s.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v5e", 197e12, 16 * GIB, 819e9, 400e9 / 8, 2, "https://docs.cloud.google.com/tpu/docs/v5e"),
        Chip("v5p", 459e12, 95 * GIB, 2765e9, 1200e9 / 12, 3, "https://docs.cloud.google.com/tpu/docs/v5p"),
        Chip("v6e", 918e12, 32 * GIB, 1638e9, 800e9 / 8, 2, "https://docs.cloud.google.com/tpu/docs/v6e"),
    )
}


def parse_topology(topology: str) -> tuple[Chip, tuple[int, ...]]:
    """Parse a topology.

    Args:
      topology: chip and shape of the pod, `v5e:16x16`.

    Returns:
      the chip and the shape, `(16, 16)`.

    Raises:
      ValueError: the chip is not one of `CHIPS`, or the shape does not have the dimensions of its torus.
    """
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", topology)
    if not match:
        raise ValueError(f"--aot_topology is {topology!r}; it must be a chip and the shape of its pod, as v5e:16x16")
    if match[1] not in CHIPS:
        raise ValueError(f"--aot_topology names the chip {match[1]!r}; the known ones are {', '.join(CHIPS)}")
    chip, shape = CHIPS[match[1]], tuple(map(int, match[2].split("x")))
    if len(shape) != chip.dimensions or min(shape) < 1:
        example = "x".join(["4"] * chip.dimensions)
        raise ValueError(
            f"--aot_topology is {topology!r}; a pod of {chip.name} has {chip.dimensions} sizes, as in "
            f"{chip.name}:{example}"
        )
    return chip, shape


@dataclasses.dataclass(frozen=True)
class LeastTime:
    """Lower bounds on the time of a step, in seconds: for compute, memory traffic and the network, each on its own."""

    compute: float
    memory: float
    network: float

    @property
    def seconds(self) -> float:
        """The bound on the whole step, reached if the three overlap perfectly."""
        return max(self.compute, self.memory, self.network)

    @property
    def bound_by(self) -> str:
        """The largest of the three: compute, memory or network."""
        times = dataclasses.asdict(self)
        return max(times, key=times.get)


def least_time(chip: Chip, flops: float, traffic: float, sent: float) -> LeastTime:
    """Compute the roofline bounds of one device.

    Args:
      chip: kind of the device.
      flops: operations of matrix products and convolutions on the device.
      traffic: bytes that it reads from and writes to HBM.
      sent: bytes that it sends in collectives. These are assumed to use rings along one dimension of the torus in both
        directions, hence two links; collectives along several dimensions at once could be faster.
    """
    return LeastTime(flops / chip.flops, traffic / chip.memory_bandwidth, sent / (2 * chip.link_bandwidth))


def chip_hours(seconds: float, steps: int, shape: tuple[int, ...]) -> float:
    """Return the chip hours of `steps` steps of `seconds` each on a pod of `shape`."""
    return seconds * steps * math.prod(shape) / 3600
