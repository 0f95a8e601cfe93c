"""TPU chips in numbers, and the time that a step cannot go below on one."""

import dataclasses
import math
import re

GB, GIB = 10**9, 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """A kind of TPU chip.

    Attributes:
      name: as in a topology, `v5e`.
      flops: peak of bfloat16 products, FLOP/s.
      memory: bytes of HBM.
      memory_bandwidth: bytes/s between HBM and the chip.
      link_bandwidth: bytes/s that one link to a neighbour carries in one direction.
      dimensions: of the torus: a chip has two links along each.
      source: where Google says so.
    """

    name: str
    flops: float
    memory: int
    memory_bandwidth: float
    link_bandwidth: float
    dimensions: int
    source: str


# The interconnect's bandwidth is given for all links of a chip and both directions: 400, 1200 and 800 GB/s.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v5e", 197e12, 16 * GIB, 819e9, 400e9 / 8, 2, "https://docs.cloud.google.com/tpu/docs/v5e"),
        Chip("v5p", 459e12, 95 * GIB, 2765e9, 1200e9 / 12, 3, "https://docs.cloud.google.com/tpu/docs/v5p"),
        Chip("v6e", 918e12, 32 * GIB, 1638e9, 800e9 / 8, 2, "https://docs.cloud.google.com/tpu/docs/v6e"),
    )
}


def parse_topology(topology: str) -> tuple[Chip, tuple[int, ...]]:
    """ "v5e:16x16" -> the chip and (16, 16).

    Raises:
      ValueError: the chip is not in the table, or the shape is not one of its torus.
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
    """Seconds that a step takes at least, were each of the three the only thing that it waits for."""

    compute: float
    memory: float
    network: float

    @property
    def seconds(self) -> float:
        """Of the whole step, if the three overlap perfectly."""
        return max(self.compute, self.memory, self.network)

    @property
    def bound_by(self) -> str:
        """What takes the longest: compute, memory or network."""
        times = dataclasses.asdict(self)
        return max(times, key=times.get)


def least_time(chip: Chip, flops: float, traffic: float, sent: float) -> LeastTime:
    """The roofline of one device.

    Args:
      flops: of products and convolutions on a device.
      traffic: bytes that it reads from and writes to HBM.
      sent: bytes that it sends in collectives. They are taken to go round rings along one dimension of the torus, in
        both directions, so over two links; collectives along several dimensions at once could be faster.
    """
    return LeastTime(flops / chip.flops, traffic / chip.memory_bandwidth, sent / (2 * chip.link_bandwidth))


def chip_hours(seconds: float, steps: int, shape: tuple[int, ...]) -> float:
    """Hours of chips for `steps` steps of `seconds` each on a pod of `shape`."""
    return seconds * steps * math.prod(shape) / 3600
