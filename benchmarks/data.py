"""Reading training data: clips from videos beside a plain PyAV loop and decord, and prepared latents beside raw bytes.

    python benchmarks/data.py [--rounds 5] [--output data.json]

Videos are made on the spot: 1280x720, H.264, 24 frames a second, 12 s, a key frame each 2 s, a textured scene that
moves behind some grain. A clip is 16 frames at 8 a second from a random place, as a 256x256 square. All ways read such
clips, in turns, with one decoding thread a video; what is counted is clips a second of wall time. The outputs are
compared first. The latents are those of configs/webvid/prepare.py: 16x16, 32x32 and 64x64, 16 frames, and text states
of 77x768.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Colorspace

FPS, FRAMES, SIDE = 8.0, 16, 256
CLIPS = 24  # in a turn
WHOLE = "prepare, whole videos, 512"  # all clips of a video, with scene changes and motion, at 512x512


def write_corpus(folder: Path, count: int = 8) -> list[Path]:
    paths = []
    for number in range(count):
        rng = np.random.default_rng(number)
        small = rng.integers(0, 256, (46, 82, 3), dtype=np.uint8)
        scene = np.asarray(av.VideoFrame.from_ndarray(small, format="rgb24").reformat(1640, 920, "rgb24").to_ndarray())
        grain = rng.integers(-11, 12, (4, 720, 1280, 1)).astype(np.int16)
        path = folder / f"{number}.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=24, options={"crf": "23", "preset": "veryfast", "g": "48"})
            stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
            stream.codec_context.colorspace = Colorspace.ITU709
            for index in range(24 * 12):
                top, left = index % 200, (2 * index) % 360
                frame = scene[top : top + 720, left : left + 1280] + grain[index % 4]
                picture = av.VideoFrame.from_ndarray(np.clip(frame, 0, 255).astype(np.uint8), format="rgb24")
                container.mux(stream.encode(picture.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)))
            container.mux(stream.encode(None))
        paths.append(path)
    rate = sum(path.stat().st_size for path in paths) * 8 / (12 * count) / 1e6
    print(f"{count} videos of {rate:.1f} Mbit/s")
    return paths


def plain_pyav(path: Path, start: float) -> np.ndarray:
    """The loop that one would write: seek, decode, keep what is due, resize, cut."""
    frames: list[np.ndarray] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        container.seek(int(start / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            if frame.time < start + len(frames) / FPS - 0.5 / 24:
                continue
            picture = frame.to_ndarray(format="rgb24", width=round(SIDE * frame.width / frame.height), height=SIDE)
            left = (picture.shape[1] - SIDE) // 2
            frames.append(picture[:, left : left + SIDE])
            if len(frames) == FRAMES:
                break
    return np.stack(frames)


def decord_reader(path: Path, start: float) -> np.ndarray:
    import decord

    reader = decord.VideoReader(str(path), ctx=decord.cpu(0), width=round(SIDE * 16 / 9), height=SIDE, num_threads=1)
    indices = np.round((start + np.arange(FRAMES) / FPS) * 24).astype(int)
    pictures = reader.get_batch(list(indices)).asnumpy()
    left = (pictures.shape[2] - SIDE) // 2
    return pictures[:, :, left : left + SIDE]


def ours(path: Path, start: float) -> np.ndarray:
    from videogen_jax.data.decoding import Framing, VideoFile, read_frames

    with VideoFile(str(path)) as video:
        return read_frames(video, start + np.arange(FRAMES) / FPS, Framing(SIDE))


def rate(work, count: int) -> float:
    begin = time.perf_counter()
    work()
    return count / (time.perf_counter() - begin)


def video_rates(folder: Path, rounds: int) -> dict[str, list[float]]:
    from videogen_jax.data.clips import ClipRules, read_clips
    from videogen_jax.data.corpora import build_corpus
    from videogen_jax.data.loader import make_loader
    from videogen_jax.data.videos import VideoClips, Window

    paths = write_corpus(folder)
    rng = np.random.default_rng(0)
    wanted = [(paths[i % len(paths)], round(rng.uniform(0, 9) * 24) / 24) for i in range(CLIPS)]
    ways = {"plain PyAV loop": plain_pyav, "read_frames": ours}
    try:
        import decord  # noqa: F401

        ways["decord"] = decord_reader
    except ImportError:
        print("decord is not installed and is left out")
    for name, way in ways.items():
        error = np.abs(way(*wanted[0]).astype(int) - plain_pyav(*wanted[0])).mean()
        print(f"{name}: mean difference from the plain loop {error:.2f} of 255")
    corpus = build_corpus({"kind": "folder", "folder": str(folder), "captions": None})
    loaders = {}
    for workers in (1, 2):
        source = VideoClips(corpus, Window(FRAMES, (FPS,), SIDE), num_workers=workers)
        loaders[f"loader, {workers} process{'es' * (workers > 1)}"] = make_loader(
            source, 4, 0, num_threads=4, prefetch=1
        )
    rules = ClipRules(FRAMES, (FPS,), 512)
    rates: dict[str, list[float]] = {name: [] for name in (*ways, *loaders, WHOLE)}
    for loader in loaders.values():
        next(loader)  # the processes start
    for _ in range(rounds):
        for name, way in ways.items():
            rates[name].append(rate(lambda way=way: [way(*clip) for clip in wanted], CLIPS))
        begin = time.perf_counter()
        clips = sum(len(read_clips(corpus.item(index), rules).clips) for index in range(2))
        rates[WHOLE].append(clips / (time.perf_counter() - begin))
        for name, loader in loaders.items():
            time.sleep(3.0)  # what is read ahead between turns is done and counts for nothing:
            for _ in range(3):  # it is drawn first
                next(loader)
            rates[name].append(rate(lambda loader=loader: [next(loader) for _ in range(CLIPS // 4)], CLIPS))
    return rates


def prepared_rates(folder: Path, rounds: int, records: int = 256) -> dict[str, list[float]]:
    from videogen_jax.data.loader import make_loader
    from videogen_jax.data.prepared import RECIPE_NAME, PreparedClips, ShardWriter, write_metadata

    arrays = {f"latents_{side}": (FRAMES, side, side, 4) for side in (16, 32, 64)}
    arrays |= {f"reference_{side}": (1, side, side, 4) for side in (16, 32, 64)} | {"context": (77, 768)}
    rng = np.random.default_rng(0)
    path = folder / "bench-train.array_record-00000-of-00001"
    with ShardWriter(path, arrays) as writer:
        for number in range(records):
            made = {name: rng.standard_normal(shape, np.float32) for name, shape in arrays.items()}
            writer.write({"id": str(number), "caption": "", "start": 0.0, "fps": FPS, "motion": 1.0, **made})
    (folder / RECIPE_NAME).write_text(json.dumps({"arrays": arrays}))
    write_metadata(folder, "bench", "train", arrays, [records])
    source = PreparedClips(str(folder), resolution=64, lower_resolution=32)
    loader = make_loader(source, 16, 0, num_threads=2, prefetch=2)
    print(f"a prepared clip takes {path.stat().st_size / records / 1e6:.3f} MB")
    rates: dict[str, list[float]] = {"raw bytes": [], "prepared latents, loader": []}
    next(loader)
    for _ in range(rounds):
        rates["raw bytes"].append(rate(path.read_bytes, records))
        time.sleep(1.0)
        for _ in range(4):
            next(loader)
        rates["prepared latents, loader"].append(rate(lambda: [next(loader) for _ in range(records // 16)], records))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as videos, tempfile.TemporaryDirectory() as latents:
        results = {"videos": video_rates(Path(videos), arguments.rounds)}
        results["prepared"] = prepared_rates(Path(latents), arguments.rounds)
    print(f"clips a second, median of {arguments.rounds} (lowest to highest), {os.cpu_count()} cores")
    for rates in results.values():
        first = statistics.median(next(iter(rates.values())))
        for name, values in rates.items():
            middle = statistics.median(values)
            print(f"{name:28} {middle:8.2f} ({min(values):.2f} to {max(values):.2f})  x{middle / first:.2f}")
    if arguments.output:
        arguments.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
