"""Records of TFDS data sets, written and read without TensorFlow."""

import importlib.util
import io
import json
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tensorflow_datasets import features

from videogen_jax.data.corpora import build_corpus
from videogen_jax.data.entries import BadItem
from videogen_jax.data.tfds_records import read_frames

CORE = "tensorflow_datasets.core.features"
# As TFDS 4.9.10 declares a Video.
SHAPE = {"dimensions": ["-1", "-1", "-1", "3"]}
VIDEO = {
    "pythonClassName": f"{CORE}.video_feature.Video",
    "video": {"dtype": "uint8", "encodingFormat": "png", "shape": SHAPE},
}


def write_records(folder, types, examples, shards=2):
    """Write a data set as TFDS prepares it; return the examples in its order."""
    folder.mkdir(parents=True)
    types = features.FeaturesDict(types)
    parts = [examples[shard::shards] for shard in range(shards)]
    for shard, part in enumerate(parts):
        path = folder / f"my_set-train.array_record-{shard:05d}-of-{shards:05d}"
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for example in part:
            writer.write(types.serialize_example(example))
        writer.close()
    files = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name="my_set", split="train", filetype_suffix="array_record"
    )
    lengths = [len(part) for part in parts]
    split = tfds.core.SplitInfo(name="train", shard_lengths=lengths, num_bytes=0, filename_template=files)
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=types, split_infos=[split], version=folder.name, check_data=False
    )
    return [example for part in parts for example in part]


def declare(folder, **types):
    """Change the declarations of some features in features.json."""
    declared = json.loads((folder / "features.json").read_text())
    declared["featuresDict"]["features"].update(types)
    (folder / "features.json").write_text(json.dumps(declared))


@pytest.fixture(scope="module")
def tfds_tensors(tmp_path_factory):
    """A data set of tensors: its data_dir and its examples in order."""
    rng = np.random.default_rng(0)
    examples = [
        {
            "video": rng.integers(0, 255, (2 + index, 6, 8, 3), np.uint8),
            "plain": np.full((2, 4, 4, 3), index, np.uint8),
            "caption": [" a clip 🐟", b"\xff", "", "d", "e"][index],
            "fps": [8.0, 25.0, 5.0, 0.0, 2.5][index],
            "id": ["one", "two", "three", "four", "one"][index],
            "number": index + 7,
        }
        for index in range(5)
    ]
    types = {
        "video": features.Tensor(shape=(None, 6, 8, 3), dtype=np.uint8, encoding="zlib"),
        "plain": features.Tensor(shape=(2, 4, 4, 3), dtype=np.uint8),
        "caption": features.Text(),
        "fps": features.Scalar(np.float32),
        "id": features.Text(),
        "number": features.Scalar(np.int64),
    }
    folder = tmp_path_factory.mktemp("tfds")
    return folder, write_records(folder / "my_set/1.0.0", types, examples)


def test_tfds(tfds_tensors):
    data_dir, examples = tfds_tensors
    config = {"kind": "tfds", "split": "train", "data_dir": str(data_dir), "name": "my_set/1.0.0"}
    features = {"caption_feature": "caption", "fps_feature": "fps", "id_feature": "id"}
    corpus = build_corpus({**config, **features, "frames_feature": "video"})
    reasons = {
        "two": "its caption is not UTF-8",
        "three": "its caption is empty",
        "four": "its fps is 0.0; it must be above zero",
    }
    assert [corpus.id(index) for index in range(5)] == ["one", "three", "one", "two", "four"]
    item = corpus.item(0)
    assert (item.id, item.caption, item.fps, item.suffix) == ("one", "a clip 🐟", 8.0, ".tfds")
    assert item.path == str(data_dir / "my_set/1.0.0")
    assert len(pickle.dumps(item)) < 400
    np.testing.assert_array_equal(read_frames(item), examples[0]["video"])
    for index in (1, 3, 4):
        with pytest.raises(BadItem, match=f"^{reasons[corpus.id(index)]}$"):
            corpus.item(index)
    with pytest.raises(BadItem, match="an earlier entry has the same id"):
        corpus.item(2)
    with pytest.raises(ValueError, match=r"one is a record of .*1.0.0, not a file"):
        item.open()

    config = {"kind": "tfds", "folder": item.path, "frames_feature": "plain", "fps": 4}
    part = build_corpus({**config, "split": "train[1:4]"})
    assert [part.id(index) for index in range(len(part))] == [f"train[1:4]/{index}" for index in range(3)]
    for index in range(3):
        item = part.item(index)
        assert (item.caption, item.fps) == (None, 4.0)
        np.testing.assert_array_equal(read_frames(item), examples[1 + index]["plain"])
    numbered = build_corpus({**config, "split": "train", "id_feature": "number"})
    assert [numbered.id(index) for index in range(5)] == [str(example["number"]) for example in examples]

    with ThreadPoolExecutor(4) as pool:
        for index, frames in enumerate(pool.map(lambda index: read_frames(part.item(index % 3)), range(30))):
            np.testing.assert_array_equal(frames, examples[1 + index % 3]["plain"])
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        np.testing.assert_array_equal(pool.submit(read_frames, item).result(), examples[3]["plain"])


def encoded(image, format):
    stream = io.BytesIO()
    image.save(stream, format)
    return io.BytesIO(stream.getvalue())


def test_tfds_video_without_tensorflow(tmp_path):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (3, 6, 8, 3), np.uint8)
    palette = Image.fromarray(frames[0]).quantize(16)
    stored = [
        [encoded(Image.fromarray(frame), "png") for frame in frames],
        [encoded(palette, "png"), encoded(Image.fromarray(frames[1]).convert("RGBA"), "png")],
        [encoded(Image.fromarray(frames[0]), "jpeg")],
        [encoded(Image.fromarray(frames[0]), "png"), encoded(Image.fromarray(frames[0, :4]), "png")],
        [io.BytesIO(b"no image")],
        [],
    ]
    expected = [frames, np.stack([np.array(palette.convert("RGB")), frames[1]])]
    expected.append(np.array(Image.open(io.BytesIO(stored[2][0].getvalue())))[None])
    images = features.Sequence(features.Image(shape=(None, None, 3)))
    folder = tmp_path / "1.0.0"
    write_records(folder, {"video": images}, [{"video": video} for video in stored], shards=1)
    config = {"kind": "tfds", "folder": str(folder), "split": "train", "frames_feature": "video", "fps": 1}

    def check(corpus):
        for index, video in enumerate(expected):
            np.testing.assert_array_equal(read_frames(corpus.item(index)), video)
        for index, reason in enumerate(
            ["has frames of several sizes", "has a frame that cannot be decoded", "has no frames"]
        ):
            with pytest.raises(BadItem, match=f"its video {reason}"):
                read_frames(corpus.item(3 + index))

    check(build_corpus(config))
    declare(folder, video=VIDEO)  # which is stored in the same way
    check(build_corpus(config))
    (record,) = folder.glob("*.array_record-*")
    damaged = bytearray(record.read_bytes())
    damaged[300:310] = bytes(10)
    record.unlink()  # the file that is open stays as it is
    record.write_bytes(damaged)
    corpus = build_corpus({**config, "split": "train[:1]"})
    with pytest.raises(BadItem, match=r"its record cannot be read .*Corrupted"):
        read_frames(corpus.item(0))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"frames_feature": "caption"},
            r"frames_feature is 'caption', of type Text and shape \(\); it must hold uint8",
        ),
        ({"frames_feature": "clip"}, r"frames_feature is 'clip'; .*1.0.0 has caption, fps, id, number, plain, video$"),
        (
            {"caption_feature": "video"},
            r"caption_feature is 'video', of type Tensor and shape \(None, 6, 8, 3\); it must hold a",
        ),
        ({"split": "test"}, r"split is 'test', which .*1.0.0 does not have \(Unknown split 'test'"),
        ({"split": "train[:0]"}, r"split is 'train\[:0\]', which .*1.0.0 does not have"),
        ({"fps": None}, r"^exactly one of config.corpus.fps and config.corpus.fps_feature is needed$"),
        ({"fps_feature": "fps"}, r"^exactly one of config.corpus.fps and config.corpus.fps_feature is needed$"),
        ({"fps": 0}, r"^config.corpus.fps is 0; it must be above zero$"),
        ({"name": None}, r"^config.corpus.folder is needed, or config.corpus.name and config.corpus.data_dir$"),
        ({"folder": "."}, r"^config.corpus.folder is needed, or config.corpus.name and config.corpus.data_dir$"),
        ({"name": "your_set"}, r"^config.corpus.name is 'your_set', but .*your_set/dataset_info.json does not exist$"),
        ({"data_dir": "/no"}, r"^config.corpus.data_dir is '/no', but there is no such folder$"),
    ],
)
def test_errors_name_the_wrong_field(tfds_tensors, fields, message):
    config = {"kind": "tfds", "split": "train", "frames_feature": "video", "fps": 1}
    with pytest.raises(ValueError, match=message):
        build_corpus({**config, "data_dir": str(tfds_tensors[0]), "name": "my_set:1.0.0", **fields})


def test_data_sets_that_cannot_be_read(tmp_path):
    types = {"video": features.Tensor(shape=(1, 2, 2, 3), dtype=np.uint8)}
    for version, shade in (("1.2.0", 0), ("1.10.0", 1)):
        write_records(
            tmp_path / "my_set" / version, types, [{"video": np.full((1, 2, 2, 3), shade, np.uint8)}], shards=1
        )
    config = {"kind": "tfds", "name": "my_set", "data_dir": str(tmp_path), "split": "train", "frames_feature": "video"}
    config["fps"] = 1
    item = build_corpus(config).item(0)
    assert item.path == str(tmp_path / "my_set/1.10.0")  # the newest
    assert read_frames(item).max() == 1

    folder = tmp_path / "my_set/1.2.0"
    config["name"] = "my_set/1.2.0"
    text = {"pythonClassName": f"{CORE}.text_feature.Text", "text": {}}
    declare(folder, caption=text, mine={"pythonClassName": "my.Feature", "jsonFeature": {"json": "{}"}})
    corpus = build_corpus({**config, "caption_feature": "caption"})
    assert corpus.id(0) == "train/0"
    with pytest.raises(BadItem, match="it has no caption"):  # whatever is declared
        corpus.item(0)
    with pytest.raises(
        ValueError, match=r"frames_feature is 'mine', whose type Feature TFDS cannot open here \(Unrecog"
    ):
        build_corpus({**config, "frames_feature": "mine"})
    if importlib.util.find_spec("tensorflow") is None:
        videos = {"pythonClassName": f"{CORE}.sequence_feature.Sequence", "sequence": {"feature": VIDEO}}
        declare(folder, videos=videos)
        with pytest.raises(
            ValueError, match=r"'videos', whose type Sequence TFDS cannot open here \(No module named 'tens"
        ):
            build_corpus({**config, "frames_feature": "videos"})
    info = (folder / "dataset_info.json").read_text()
    (folder / "dataset_info.json").write_text(info.replace('"array_record"', '"tfrecord"'))
    with pytest.raises(ValueError, match=r"1.2.0 is in tfrecord files, .* again with file_format='array_record'$"):
        build_corpus({**config, "split": "train[:1]"})
    (folder / "features.json").write_text('{"type": "old"}')
    with pytest.raises(ValueError, match=r"features.json has no featuresDict: prepare the data set again"):
        build_corpus(config)
