"""Collectives and memory traffic of a compiled program, read from its HLO text.

XLA's own cost analysis counts the body of a loop once; here it counts once per iteration.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BITS = {"pred": 8, "token": 0, "opaque": 0}  # bits of an element, where the type's name does not state them

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^  (?:ROOT )?%?([\w.\-]+) = (.*)$")
_SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](\{[^{}]*\})?")
_OPCODE = re.compile(r"(?:^|[\s)}\]])([a-z][a-z0-9\-]*)\(")
# Instructions that move no data themselves, or whose bodies are counted instead.
_NO_TRAFFIC = frozenset(
    (
        *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "add-dependency"),
        *("while", "conditional", "call", "opt-barrier", "partition-id", "replica-id", "copy-done", "slice-done"),
        *("async-update", "async-done", *(f"{kind}-done" for kind in KINDS)),
    )
)
_SLICES = ("slice", "dynamic-slice")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction of HLO.

    Attributes:
      name: without the leading %.
      result: text of the result's type, `f32[2,3]{1,0}`.
      opcode: for example `fusion`.
      operands: names of the operands.
      line: the text after the equals sign.
    """

    name: str
    result: str
    opcode: str
    operands: tuple[str, ...]
    line: str


@dataclasses.dataclass(frozen=True)
class Collectives:
    """The collectives of one kind in which a device takes part during one run of the program.

    Attributes:
      count: number of collectives executed.
      bytes: size of their results on one device.
      sent: bytes that one of n devices sends in ring algorithms: (n - 1) / n of what is gathered or exchanged, and
        twice that for an all-reduce.
    """

    count: int
    bytes: int
    sent: float


def shape_bytes(text: str, memory_only: bool = False) -> int:
    """Return the bytes of all arrays in a type.

    Args:
      text: the type, `(f32[2,3]{1,0}, bf16[4])`.
      memory_only: skip arrays in on-chip memory, S(n).
    """
    total = 0
    for name, dims, layout in _SHAPE.findall(text):
        if memory_only and "S(" in layout:
            continue
        digits = re.search(r"\d+", name)
        bits = _BITS[name] if name in _BITS else int(digits[0]) if digits else 0
        total += math.prod(int(d) for d in dims.split(",") if d) * bits // 8
    return total


def parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """Parse a module into its computations by name, and the name of the entry computation.

    Raises:
      ValueError: the text has no entry computation.
    """
    computations: dict[str, list[Instruction]] = {}
    entry, current = None, None
    for line in text.splitlines():
        header = _COMPUTATION.match(line)
        if header:
            current = computations.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
            continue
        match = _INSTRUCTION.match(line)
        if match is None or current is None:
            continue
        name, rest = match.groups()
        opcode = _OPCODE.search(rest)
        if opcode is None:
            continue
        arguments = rest[opcode.end() : _closing_parenthesis(rest, opcode.end())]
        operands = tuple(re.findall(r"%([\w.\-]+)", arguments))
        current.append(Instruction(name, rest[: opcode.start(1)], opcode[1], operands, rest))
    if entry is None:
        raise ValueError("the text is no HLO module: it has no entry computation")
    return computations, entry


def _closing_parenthesis(text: str, start: int) -> int:
    """Return the position of the parenthesis that closes the one before `start`."""
    depth = 1
    for position in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if depth == 0:
            return position
    return len(text)


def runs(computations: dict[str, list[Instruction]], entry: str) -> Iterator[tuple[list[Instruction], int]]:
    """Yield each executed computation and how often it runs: the entry, called ones, bodies of loops and branches.

    A loop whose trip count is unknown counts once. A fused computation belongs to the fusion instruction that calls it
    and is not yielded.
    """

    def visit(name: str, times: int) -> Iterator[tuple[list[Instruction], int]]:
        yield computations[name], times
        for instruction in computations[name]:
            line = instruction.line
            if instruction.opcode == "while":
                trip_count = _trip_count(line, computations)
                for called in re.findall(r"(?:body|condition)=%?([\w.\-]+)", line):
                    yield from visit(called, times * trip_count)
            elif instruction.opcode in ("call", "conditional", "async-start"):
                listed = re.search(r"branch_computations=\{([^}]*)\}", line)
                names = re.findall(r"[\w.\-]+", listed[1]) if listed else []
                names += re.findall(r"(?:to_apply|calls|true_computation|false_computation)=%?([\w.\-]+)", line)
                for called in names:
                    yield from visit(called, times)

    return visit(entry, 1)


def _trip_count(line: str, computations: dict[str, list[Instruction]]) -> int:
    """Return the trip count of a loop: XLA's annotation, or else the bound to which its condition compares a counter.

    The TPU compiler does not annotate loops. The counter is assumed to run from 0 in steps of 1, as that of `lax.scan`
    does. If neither is found, the result is 1.
    """
    if known := re.search(r'"known_trip_count":\{"n":"?(\d+)', line):
        return int(known[1])
    condition = re.search(r"condition=%?([\w.\-]+)", line)
    named = {instruction.name: instruction for instruction in computations.get(condition[1], ())} if condition else {}
    for instruction in named.values():
        if instruction.opcode == "compare" and "direction=LT" in instruction.line:
            for operand in instruction.operands:
                bound = re.search(r" constant\((\d+)\)", named[operand].line) if operand in named else None
                if bound:
                    return int(bound[1])
    return 1


def _fused(instruction: Instruction, computations: dict[str, list[Instruction]]) -> list[Instruction]:
    """Return the instructions inside a fusion."""
    called = re.search(r"calls=%?([\w.\-]+)", instruction.line)
    return computations.get(called[1], []) if called else []


def collectives(text: str, num_devices: int) -> dict[str, Collectives]:
    """Sum up the collectives of a compiled program by kind, including those fused with other work.

    Args:
      text: HLO of the compiled program.
      num_devices: size of a group where the HLO does not list groups.
    """
    computations, entry = parse(text)
    count, size, sent = Counter(), Counter(), Counter()

    def add(instruction: Instruction, times: int) -> None:
        kind = instruction.opcode.removesuffix("-start")
        result = shape_bytes(instruction.result)
        n = _group_size(instruction.line, num_devices)
        if instruction.opcode.endswith("-start") and kind in ("all-gather", "collective-permute"):
            # the type is (operands, results, ...), of which only the results count
            result = _start_result(instruction.result, kind, n)
        share = (n - 1) / n
        count[kind] += times
        size[kind] += times * result
        if kind == "all-reduce":
            sent[kind] += times * 2 * share * result
        elif kind == "reduce-scatter":
            sent[kind] += times * (n - 1) * result
        elif kind == "collective-permute":
            sent[kind] += times * result
        else:
            sent[kind] += times * share * result

    for instructions, times in runs(computations, entry):
        for instruction in instructions:
            if instruction.opcode.removesuffix("-start") in KINDS:
                add(instruction, times)
            elif instruction.opcode == "fusion":
                for inner in _fused(instruction, computations):
                    if inner.opcode.removesuffix("-start") in KINDS:
                        add(inner, times)
    return {kind: Collectives(count[kind], size[kind], sent[kind]) for kind in KINDS if count[kind]}


def _start_result(result: str, kind: str, n: int) -> int:
    """Return the bytes of the results of `all-gather-start` or `collective-permute-start`, without its operands."""
    arrays = shape_bytes(re.sub(r"[us]32\[\][^,)]*", "", result))
    return arrays * n // (n + 1) if kind == "all-gather" else arrays // 2


def _group_size(line: str, num_devices: int) -> int:
    """Return the number of devices in each group of a collective, in any of the notations of HLO."""
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", line)
    if listed:
        return len(listed[1].split(","))
    tiled = re.search(r"replica_groups=\[(\d+),(\d+)\]", line)
    if tiled:
        return int(tiled[2])
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line)
    if mesh:
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh[1])}
        return math.prod(sizes[name] for name in re.findall(r"'([^']+)'", mesh[2]))
    return num_devices


def memory_traffic(text: str) -> int:
    """Return the bytes that one device moves between HBM and its cores: operands and results of all instructions run.

    Arrays in on-chip memory are skipped. An array that is only sliced, or only updated in a slice, counts with the size
    of the slice, inside fusions too: a loop that reads another part of an array in each iteration reads the array once.
    """
    computations, entry = parse(text)
    total = 0
    for instructions, times in runs(computations, entry):
        sizes = {i.name: shape_bytes(i.result, memory_only=True) for i in instructions}
        for instruction in instructions:
            if instruction.opcode in _NO_TRAFFIC:
                continue
            if instruction.opcode in ("copy-start", "slice-start"):  # to or from on-chip memory: (result, operand, ...)
                total += times * shape_bytes(instruction.result.rpartition("u32")[0], memory_only=True)
                continue
            total += times * _instruction_traffic(instruction, sizes, computations)
    return total


def _instruction_traffic(
    instruction: Instruction, sizes: dict[str, int], computations: dict[str, list[Instruction]]
) -> int:
    """Return the bytes of an instruction's operands and result, counting only the slices that it accesses."""
    result = sizes[instruction.name]
    operands = [sizes.get(name, 0) for name in instruction.operands]
    if instruction.opcode in _SLICES:
        return result + min(result, operands[0])
    if instruction.opcode == "dynamic-update-slice":
        return 2 * min(operands[0], operands[1])
    if instruction.opcode == "fusion":
        read, written = _fused_slices(_fused(instruction, computations))
        operands = [min(size, read.get(number, size)) for number, size in enumerate(operands)]
        result = result if written is None else min(result, written)
    return result + sum(operands)


def _fused_slices(fused: list[Instruction]) -> tuple[dict[int, int], int | None]:
    """Find the operands that a fusion accesses only in slices.

    Args:
      fused: the instructions inside the fusion.

    Returns:
      the bytes read, by operand number, of operands that are only sliced or updated in a slice; and the bytes written
      if the fusion returns such an updated operand (the update happens in place), otherwise None.
    """
    sizes = {i.name: shape_bytes(i.result) for i in fused}
    read, written = {}, None
    for parameter in fused:
        number = re.search(r" parameter\((\d+)\)", parameter.line)
        if number is None:
            continue
        users = [i for i in fused if parameter.name in i.operands]
        if all(i.opcode in _SLICES and parameter.name not in i.operands[1:] for i in users):
            read[int(number[1])] = sum(sizes[i.name] for i in users)
        elif [(i.opcode, i.operands[0]) for i in users] == [("dynamic-update-slice", parameter.name)]:
            update = sizes[users[0].operands[1]]
            read[int(number[1])] = update
            written = update if users[0] is fused[-1] else written
    return read, written
