"""What a compiled program does, read from its text (HLO): collectives and traffic with memory, loops counted in full.

XLA's own cost analysis counts the body of a loop once; here it counts as often as it runs.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BITS = {"pred": 8, "token": 0, "opaque": 0}  # of an element, where the name does not tell

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^  (?:ROOT )?%?([\w.\-]+) = (.*)$")
_SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](\{[^{}]*\})?")
_OPCODE = re.compile(r"(?:^|[\s)}\]])([a-z][a-z0-9\-]*)\(")
# What moves no data of its own, or whose bodies are counted instead.
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
    """One line of HLO: its name, the text of its result's type, its opcode, its operands' names and the whole line."""

    name: str
    result: str
    opcode: str
    operands: tuple[str, ...]
    line: str


@dataclasses.dataclass(frozen=True)
class Collectives:
    """The collectives of one kind that a device takes part in during one run of the program.

    Attributes:
      count: how many are run.
      bytes: of their results, on one device.
      sent: bytes that one device sends, if a ring is used: of n devices (n - 1) / n of what is gathered or exchanged,
        and twice that for what is summed everywhere.
    """

    count: int
    bytes: int
    sent: float


def shape_bytes(text: str, memory_only: bool = False) -> int:
    """Bytes of all arrays in a type, `(f32[2,3]{1,0}, bf16[4])`; memory_only: without those in on-chip memory, S(n)."""
    total = 0
    for name, dims, layout in _SHAPE.findall(text):
        if memory_only and "S(" in layout:
            continue
        digits = re.search(r"\d+", name)
        bits = _BITS[name] if name in _BITS else int(digits[0]) if digits else 0
        total += math.prod(int(d) for d in dims.split(",") if d) * bits // 8
    return total


def parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """The computations of a module, and the name of the entry.

    Raises:
      ValueError: the text has no entry.
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
        arguments = rest[opcode.end() : _closing(rest, opcode.end())]
        operands = tuple(re.findall(r"%([\w.\-]+)", arguments))
        current.append(Instruction(name, rest[: opcode.start(1)], opcode[1], operands, rest))
    if entry is None:
        raise ValueError("the text is no HLO module: it has no entry computation")
    return computations, entry


def _closing(text: str, start: int) -> int:
    depth = 1
    for position in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if depth == 0:
            return position
    return len(text)


def runs(computations: dict[str, list[Instruction]], entry: str) -> Iterator[tuple[list[Instruction], int]]:
    """The computations that are run as such, and how often: the entry, bodies of loops and branches.

    A loop whose number of turns cannot be told counts once. What is fused is part of the instruction that calls it.
    """

    def visit(name: str, times: int) -> Iterator[tuple[list[Instruction], int]]:
        yield computations[name], times
        for instruction in computations[name]:
            line = instruction.line
            if instruction.opcode == "while":
                turns = _turns(line, computations)
                for called in re.findall(r"(?:body|condition)=%?([\w.\-]+)", line):
                    yield from visit(called, times * turns)
            elif instruction.opcode in ("call", "conditional", "async-start"):
                listed = re.search(r"branch_computations=\{([^}]*)\}", line)
                names = re.findall(r"[\w.\-]+", listed[1]) if listed else []
                names += re.findall(r"(?:to_apply|calls|true_computation|false_computation)=%?([\w.\-]+)", line)
                for called in names:
                    yield from visit(called, times)

    return visit(entry, 1)


def _turns(line: str, computations: dict[str, list[Instruction]]) -> int:
    """How often a loop runs: as XLA says, or else (the TPU compiler does not) as its condition compares a counter.

    Such a counter is taken to go from 0 by 1, as those of `lax.scan` do. 1 where neither tells.
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
    """What a fusion computes."""
    called = re.search(r"calls=%?([\w.\-]+)", instruction.line)
    return computations.get(called[1], []) if called else []


def collectives(text: str, num_devices: int) -> dict[str, Collectives]:
    """The collectives of a compiled program by kind; those that were fused with other work are found too."""
    computations, entry = parse(text)
    count, size, sent = Counter(), Counter(), Counter()

    def add(instruction: Instruction, times: int) -> None:
        kind = instruction.opcode.removesuffix("-start")
        result = shape_bytes(instruction.result)
        n = _group_size(instruction.line, num_devices)
        if instruction.opcode.endswith("-start") and kind in ("all-gather", "collective-permute"):
            # (operands, results, ...): what comes out is what is there beside the operands
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
    """Bytes that come out of `all-gather-start` or `collective-permute-start`, whose type holds the operands too."""
    arrays = shape_bytes(re.sub(r"[us]32\[\][^,)]*", "", result))
    return arrays * n // (n + 1) if kind == "all-gather" else arrays // 2


def _group_size(line: str, num_devices: int) -> int:
    """Devices in each group of a collective, from any of the ways in which HLO writes them."""
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
    """Bytes that one device moves between its memory and its cores: operands and results of all that is run.

    What lies in on-chip memory is left out. Of what a slice is read from, or written into, the slice counts, and in a
    fusion too where nothing else reads it there: a loop that takes a part of an array each turn reads the array once.
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
            total += times * _moved(instruction, sizes, computations)
    return total


def _moved(instruction: Instruction, sizes: dict[str, int], computations: dict[str, list[Instruction]]) -> int:
    """Bytes of an instruction's operands and its result, of slices where it reads or writes no more."""
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
    """Bytes that a fusion reads of the operands, by number, of which it takes slices alone; bytes that it writes.

    Where it gives an operand back with a slice written into it, that is done in place: both are the slice's, and the
    second is None elsewhere.
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
