"""The kinds of corpus that the configs of this folder can read. docs/data.md explains the fields."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.arguments import Key

CORPORA = {
    # A CSV file with WebVid's columns: videos/<page_dir>/<videoid>.mp4. "" where there is no page or caption column.
    "csv": {
        "file": "results_10M_train.csv",
        "folder": "videos",
        "suffix": ".mp4",
        "id_column": "videoid",
        "page_column": "page_dir",
        "caption_column": "name",
    },
    # Videos in a folder, each with a .txt beside it ("txt"), a .jsonl that names files and captions, or none ("").
    "folder": {"folder": "videos", "captions": "txt", "media": "videos"},
    # Still images in a folder.
    "images": {"folder": "images", "captions": "txt", "media": "images"},
    "webdataset": {
        "shards": "shards/{000000..000099}.tar",
        "media": "videos",
        "captions": ("txt", "json"),
        "caption_key": placeholder(str),
    },
    # A TFDS data set with a feature of frames; the frame rate is `fps`, or a feature of its own.
    "tfds": {
        "name": placeholder(str),  # together with data_dir; or else folder, which holds dataset_info.json
        "data_dir": placeholder(str),
        "folder": placeholder(str),
        "split": "train",
        "frames_feature": "video",
        "caption_feature": placeholder(str),
        "fps": placeholder(float),
        "fps_feature": placeholder(str),
        "id_feature": placeholder(str),
    },
}
PREPARED = "prepared"  # in the place of a corpus: a data set that `videogen_jax.prepare` wrote


def corpus_key(default: str, prepared: bool = False) -> Key:
    """The argument `corpus` of a config: a kind of corpus, or with `prepared` a prepared data set."""
    return Key(default, (*CORPORA, PREPARED) if prepared else tuple(CORPORA))


def get_corpus(kind: str) -> ConfigDict:
    """The fields of a kind of corpus, a key of CORPORA, to be set from the command line."""
    return ConfigDict({"kind": "folder" if kind == "images" else kind, **CORPORA[kind]})


def get_videos_data(kind: str, resolution: int, num_frames: int, fps: tuple[float, ...]) -> ConfigDict:
    """The `data` section of a stage that is trained straight from video files."""
    data = ConfigDict({"source": "videos", "corpus": get_corpus(kind)})
    data.resolution = resolution  # of the latents
    data.num_frames = num_frames
    data.fps = fps  # each clip is sampled at one of these rates
    data.crop = False  # cut the square out at a random place
    data.flip = False  # mirror half of the clips; not where captions speak of left and right
    data.encoder_dtype = "float32"  # of the frozen networks; bfloat16 is right for GPU and TPU
    data.num_workers = 8  # decoding processes
    data.time_limit = 60.0  # seconds to decode one clip
    data.max_skipped_fraction = 0.05
    return data


def get_prepared_data(resolution: int, lower_resolution: int | None = None) -> ConfigDict:
    """The `data` section of a stage that is trained from what `videogen_jax.prepare` wrote."""
    data = ConfigDict({"source": "prepared", "folder": "data/webvid/1.0.0", "resolution": resolution})
    data.lower_resolution = placeholder(int) if lower_resolution is None else lower_resolution
    return data
