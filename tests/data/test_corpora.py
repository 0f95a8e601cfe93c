"""Listing of CSV tables, folders and tar shards."""

import gzip
import io
import os
import pickle
import random
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import pytest

from videogen_jax.data import corpora
from videogen_jax.data.corpora import build_corpus
from videogen_jax.data.entries import BadItem
from videogen_jax.data.tar_shards import expand_shards
from videogen_jax.video_io import write_video

HEADER = "videoid,contentUrl,duration,page_dir,name"


def write_files(folder, **contents):
    """Write files by their paths in the folder; for None the content is derived from the path."""
    for path, content in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(f"bytes of {path}".encode() if content is None else content)
    return str(folder)


def content(item):
    source = item.open()
    if isinstance(source, str):
        with open(source, "rb") as file:
            return file.read()
    with source:
        return source.read()


def read_all(corpus):
    """Return the id, caption and bytes of each entry; of a bad one, the id and the reason."""
    entries = []
    for index in range(len(corpus)):
        try:
            item = corpus.item(index)
            assert pickle.loads(pickle.dumps(item)) == item
            entries.append((item.id, item.caption, content(item)))
        except BadItem as error:
            entries.append((error.id, str(error)))
    assert [entry[0] for entry in entries] == [corpus.id(index) for index in range(len(corpus))]
    return entries


def write_table(tmp_path, rows, name="table.csv"):
    (tmp_path / name).write_bytes(rows if isinstance(rows, bytes) else rows.encode())
    return {"kind": "csv", "file": str(tmp_path / name), "folder": str(tmp_path / "videos")}


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_table(tmp_path, mark, end):
    write_files(tmp_path / "videos", **{"001/1.mp4": None, "001/2.mp4": b"", "002/3.mp4": os.urandom(5000)})
    rows = [
        HEADER,
        '1,u,PT10S,001,"A dog, called ""Rex"",\nruns"',
        "",
        "2,u,PT10S,001, Pêche à la ligne 🐟 ",
        '3,"u',
        'u",PT10S,002,5" nails',
    ]
    config = write_table(tmp_path, mark + end.join(row.encode() for row in rows))
    corpus = build_corpus(config)
    assert read_all(corpus) == [
        ("1", 'A dog, called "Rex",\nruns', b"bytes of 001/1.mp4"),
        ("2", "Pêche à la ligne 🐟", b""),
        ("3", '5" nails', (tmp_path / "videos/002/3.mp4").read_bytes()),
    ]
    item = corpus.item(0)
    assert item.path == str(tmp_path / "videos/001/1.mp4")
    assert (item.suffix, item.offset, item.size, item.fps, item.is_image) == (".mp4", 0, None, None, False)
    with pytest.raises(IndexError, match="entry 3 of 3"):
        corpus.item(3)


def test_bad_rows_have_a_reason(tmp_path):
    folder = write_files(tmp_path / "videos", **{f"p/{i}.mp4": None for i in range(12)}, **{"secret.mp4": b""})
    write_files(tmp_path, **{"beside.mp4": b""})
    (tmp_path / "videos/p/12.mp4").mkdir()
    rows = [
        *(b"0,u,d,p,good", b"1,u,d,p,caf\xe9", b"2,u,d,p,", b"3,u,d,p,  ", b"4,u,d", b"", b"5,u,d,p,a dog, running"),
        *(b"0,u,d,p,once more", b"99,u,d,p,gone", b"../../beside,u,d,p,out", b"\xe96,u,d,p,name", b",u,d,p,none"),
        *(b"12,u,d,p,a folder", b"7,u,d,p,a\rb", b"8,u,d,p," + b"x" * 200_000, b"9,u,d,p,good", b"nul\0,u,d,p,x"),
    ]
    corpus = build_corpus(write_table(tmp_path, b"\n".join([HEADER.encode(), *rows])))
    seventh = (tmp_path / "table.csv").read_bytes().index(b"7,u,d,p")
    parsing, long, *rest = read_all(corpus)[11:]
    assert read_all(corpus)[:11] == [
        ("0", "good", b"bytes of p/0.mp4"),
        ("1", "its caption is not UTF-8"),
        ("2", "its caption is empty"),
        ("3", "its caption is empty"),
        ("4", "its row has 3 columns, but the header has 5"),
        ("5", "its row has 6 columns, but the header has 5"),
        ("0", "an earlier entry has the same id"),
        ("99", f"its file {folder}/p/99.mp4 is missing"),
        ("../../beside", f"its file p/../../beside.mp4 is not in {folder}"),
        ("\\udce96", "its id is not UTF-8"),
        ("", "its id is empty"),
    ]
    assert parsing == ("12", f"its file {folder}/p/12.mp4 is missing")
    assert long[0] == f"table.csv@{seventh}"
    assert long[1].startswith("its row cannot be parsed (new-line character seen")
    assert rest[0][1] == "its row cannot be parsed (field larger than field limit (131072))"
    assert rest[1:] == [
        ("9", "good", b"bytes of p/9.mp4"),
        ("nul\0", f"its file {folder}/p/nul\0.mp4 is missing"),
    ]


def test_other_columns(tmp_path):
    write_files(tmp_path / "videos", **{"a/b.WEBM": None, "c.png": None, "d.txt": None})
    config = write_table(tmp_path, "text,path\nhello,a/b.WEBM\n,c.png\nx,d.txt\n")
    columns = {"id_column": "path", "page_column": "", "suffix": ""}
    labelled = build_corpus({**config, **columns, "caption_column": "text"})
    assert labelled.item(0).suffix == ".webm"
    assert read_all(labelled)[:2] == [("a/b.WEBM", "hello", b"bytes of a/b.WEBM"), ("c.png", "its caption is empty")]
    assert "d.txt ends in none of .mp4, .webm" in read_all(labelled)[2][1]
    unlabelled = build_corpus({**config, **columns, "caption_column": None})
    assert read_all(unlabelled)[1] == ("c.png", None, b"bytes of c.png")
    assert unlabelled.item(1).is_image


def test_table_is_not_kept_in_memory(tmp_path):
    count = 20_000
    config = write_table(tmp_path, "\n".join([HEADER, *(f"{i},u,d,p,{'long ' * 20}{i}" for i in range(count))]))
    write_files(tmp_path / "videos", **{"p/19999.mp4": None})
    corpus = build_corpus(config)
    assert len(pickle.dumps(corpus)) < 8 * count + 2000
    assert pickle.loads(pickle.dumps(corpus)).item(count - 1).caption == f"{'long ' * 20}19999"
    with open(config["file"], "a") as file:
        file.write("\n1,u,d,p,new")
    with pytest.raises(ValueError, match=r"table.csv has changed since it was listed") as error:
        corpus.item(0)
    assert not isinstance(error.value, BadItem)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            "videoid,page_dir,title\n1,p,x\n",
            r"'name' of config.corpus.caption_column; found: videoid, page_dir, title$",
        ),
        ("page_dir,name\n1,x\n", r"table.csv lacks the column 'videoid' of config.corpus.id_column"),
        ("", r"lacks the column 'videoid' of config.corpus.id_column; found: none"),
        ("a\rb\r", r"the header of .*table.csv cannot be parsed \(new-line"),
        (HEADER + "\n\n", r"table.csv holds no entries"),
    ],
)
def test_tables_that_cannot_be_listed(tmp_path, table, message):
    write_files(tmp_path / "videos", **{"1.mp4": b""})
    with pytest.raises(ValueError, match=message):
        build_corpus(write_table(tmp_path, table))


def test_ids_are_compared_where_hashes_are_equal(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "hash", lambda name: len(name), raising=False)
    names = ["aa", "b", "bb", "aa", "c", "aa", "b", "cc"]
    write_files(tmp_path / "videos", **{f"p/{name}.mp4": b"" for name in names})
    corpus = build_corpus(write_table(tmp_path, "\n".join([HEADER, *(f"{name},u,d,p,x" for name in names)])))
    assert [index for index, entry in enumerate(read_all(corpus)) if len(entry) == 2] == [3, 5, 6]
    assert [corpus.id(index) for index in range(8)] == names


def test_folder(tmp_path):
    videos = ["b.mp4", "b-1/x.mp4", "b/2.MKV", "b/10.gif", "a.mov"]
    files = dict.fromkeys(videos) | {path[: path.rindex(".")] + ".txt": path.encode() for path in videos}
    hidden = {".c.mp4": b"", ".d/e.mp4": b"", "note.md": b"", "f.jpg": b"", "a.webm": b""}
    folder = write_files(tmp_path / "in", **files, **hidden)
    (tmp_path / "in/link.mp4").symlink_to(tmp_path / "in/a.mov")
    (tmp_path / "in/gone.mp4").symlink_to(tmp_path / "nowhere")
    (tmp_path / "in/linked").symlink_to(tmp_path / "in/b")
    corpus = build_corpus({"kind": "folder", "folder": folder})
    assert read_all(corpus) == [
        ("a", "a.mov", b"bytes of a.mov"),
        ("a", "an earlier entry has the same id"),
        ("b-1/x", "b-1/x.mp4", b"bytes of b-1/x.mp4"),
        ("b", "b.mp4", b"bytes of b.mp4"),
        ("b/10", "b/10.gif", b"bytes of b/10.gif"),
        ("b/2", "b/2.MKV", b"bytes of b/2.MKV"),
        ("link", f"its caption {folder}/link.txt is missing"),
    ]
    assert corpus.item(5).suffix == ".mkv"
    (tmp_path / "in/b.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "in/a.txt").write_bytes(b"\xef\xbb\xbf \r\n")
    (tmp_path / "in/b/2.MKV").unlink()
    assert [read_all(corpus)[index][1] for index in (0, 3, 5)] == [
        "its caption is empty",
        "its caption is not UTF-8",
        f"its file {folder}/b/2.MKV is missing",
    ]
    unlabelled = build_corpus({"kind": "folder", "folder": folder, "captions": ""})
    assert read_all(unlabelled)[5] == ("link", None, b"bytes of a.mov")
    images = build_corpus({"kind": "folder", "folder": folder, "media": "images", "captions": None})
    assert read_all(images) == [("f", None, b"")]
    assert images.item(0).is_image
    with pytest.raises(ValueError, match=r"in/b-1, searched for .jpg, .jpeg, .png, .webp, .bmp, holds no entries"):
        build_corpus({"kind": "folder", "folder": f"{folder}/b-1", "media": "images"})


def test_folder_is_sorted_as_its_paths_are(tmp_path):
    rng = random.Random(0)
    paths = {"/".join(rng.choices(["a", "a-", "a.b", "A", "a/b", "é"], k=rng.randint(1, 3))) for _ in range(60)}
    folder = write_files(tmp_path, **{f"{path}.mp4": b"" for path in paths})
    (tmp_path / os.fsdecode(b"\xe9.mp4")).touch()
    corpus = build_corpus({"kind": "folder", "folder": folder, "captions": None})
    names = [f"{corpus.id(index)}.mp4" for index in range(len(corpus))]
    assert names[:-1] == sorted(f"{path}.mp4" for path in paths)
    assert read_all(corpus)[-1] == ("\\udce9", "its id is not UTF-8")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_json_lines(tmp_path, mark):
    folder = write_files(tmp_path / "in", **{"a/b.mp4": None, "c.webm": None, "d.jpg": None})
    no_video = f"its file {folder}/d.jpg ends in none of {', '.join(corpora.VIDEO_SUFFIXES)}"
    not_json = "its line is not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"
    lines = {
        b'{"file": "a/b.mp4", "caption": " one\\ntwo"}': ("a/b", "one\ntwo", b"bytes of a/b.mp4"),
        b'{"video": "c.webm", "text": "\xc3\xa9", "id": 7}\r': ("7", "é", b"bytes of c.webm"),
        b'{"path": "d.jpg", "text": "x"}': ("d", no_video),
        b'{"path": "c.webm", "text": "\xe9"}': ("c", "its caption is not UTF-8"),
        b'{"id": "8", "file": "c.webm", "text": "\\ud800"}': ("8", "its caption is not UTF-8"),
        b'{"id": "9", "file": "c.webm", "text": ["x"]}': ("9", "its caption is not a string"),
        b'{"id": "10", "file": "c.webm", "text": null}': ("10", "it has no caption"),
        b'{"file": "a/b.webm", "caption": "again"}': ("a/b", "an earlier entry has the same id"),
        b"{": ("captions.jsonl@%d", not_json),
        b"[]": ("captions.jsonl@%d", "its line names no file (file, video or path)"),
        b'{"path": 5}': ("captions.jsonl@%d", "its line names no file (file, video or path)"),
        b'{"path": "/etc/x.mp4", "text": "x"}': ("/etc/x", f"its file /etc/x.mp4 is not in {folder}"),
    }
    captions = tmp_path / "captions.jsonl"
    captions.write_bytes(mark + b"".join(line + b"\n\n" for line in lines) + b"[" * 99_999)
    entries = read_all(build_corpus({"kind": "folder", "folder": folder, "captions": str(captions)}))
    start = len(mark)
    for (line, expected), entry in zip(lines.items(), entries[:-1], strict=True):
        assert entry == (expected[0].replace("%d", str(start)), *expected[1:])
        start += len(line) + 2
    assert entries[-1][1].startswith("its line is not JSON (maximum recursion depth exceeded")


def write_shard(path, members, format=tarfile.GNU_FORMAT):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_shards(tmp_path, format):
    rng = np.random.default_rng(0)
    first, second = (rng.bytes(n) for n in (70_000, 513))
    long = "folder/" * 16 + "4"
    shards = [
        {"./a.b/1.mp4": first, "./a.b/1.txt": b"one\n", "./a.b/1.json": b'{"caption": "other"}', "./a.b/1.jpg": b""},
        {"._2.mp4": b"", "2": b"", "__meta__/2.mp4": b"", "2.WebM": second, "2.json": b'{"text": "two", "fps": 3}'},
        {f"{long}.mp4": b"", f"{long}.txt": "vier 🐟".encode(), "a.b/1.mp4": b"", "3.tar.mp4": b"", "3.txt": b""},
    ]
    for index, members in enumerate(shards):
        write_shard(tmp_path / f"{index:03d}.tar", members, format)
    config = {"kind": "webdataset", "shards": f"{tmp_path}/{{000..002}}.tar"}
    corpus = build_corpus(config)
    none = f"its sample in {tmp_path}/002.tar has none of {', '.join(corpora.VIDEO_SUFFIXES)}"
    assert read_all(corpus) == [
        ("a.b/1", "one", first),
        ("2", "two", second),
        (long, "vier 🐟", b""),
        ("a.b/1", "an earlier entry has the same id"),
        ("3", none),
    ]
    assert [corpus.item(index).suffix for index in range(3)] == [".mp4", ".webm", ".mp4"]
    assert read_all(build_corpus({**config, "captions": ["json", "txt"]}))[0][1] == "other"
    unlabelled = build_corpus({**config, "shards": str(tmp_path / "*.tar"), "captions": None})
    assert [entry[1] for entry in read_all(unlabelled)[:3]] == [None] * 3
    images = build_corpus({**config, "media": "images"})
    assert read_all(images)[0] == ("a.b/1", "one", b"")
    assert images.item(0).is_image

    file = corpus.item(0).open()
    with file:
        assert (file.seek(-100, os.SEEK_END), file.read()) == (69_900, first[-100:])
        assert (file.seek(9), file.read(10), file.seek(5, os.SEEK_CUR), file.tell()) == (9, first[9:19], 24, 24)
        assert (file.seek(80_000), file.read(1)) == (80_000, b"")
        with pytest.raises(ValueError, match="-1 is before the beginning"):
            file.seek(-1)


def test_bad_captions_of_shards(tmp_path):
    members = {
        "1.json": b'{"caption": null}',
        "2.json": b"{",
        "3.json": b'{"caption": 5}',
        "4.txt": b"\xff",
        "5.txt": b" ",
    }
    videos = {f"{index}.mp4": b"" for index in range(1, 7)}
    write_shard(tmp_path / "0.tar", dict(sorted({**members, **videos}.items())))
    config = {"kind": "webdataset", "shards": str(tmp_path / "0.tar")}
    assert [reason for _, reason in read_all(build_corpus(config))] == [
        "its .json has no caption or text",
        "its .json is not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))",
        "its caption is not a string",
        "its caption is not UTF-8",
        "its caption is empty",
        f"its sample in {tmp_path}/0.tar has no .txt or .json",
    ]
    assert read_all(build_corpus({**config, "caption_key": "title"}))[0][1] == "its .json has no title"
    corpus = build_corpus(config)
    (tmp_path / "0.tar").unlink()
    assert read_all(corpus)[0][1] == f"its shard {tmp_path}/0.tar cannot be read (No such file or directory)"


def test_broken_shards(tmp_path):
    members = {f"{index}.{ending}": bytes(2000) for index in range(3) for ending in ("mp4", "txt")}
    members = {name: b"caption" if name.endswith("txt") else data for name, data in members.items()}
    write_shard(tmp_path / "whole.tar", members)
    whole = (tmp_path / "whole.tar").read_bytes()
    sample = 512 + 2048 + 512 + 512
    cuts = {
        3 * sample: (3, "it has no end mark"),
        3 * sample - 500: (3, "unexpected end of data"),  # the caption is whole, its block is not
        3 * sample - 510: (2, "it ends within 2.txt"),
        3 * sample - 700: (2, "it has no end mark"),  # within the header of 2.txt
        2 * sample + 900: (2, "it ends within 2.mp4"),
        2 * sample: (2, "it has no end mark"),
        900: (0, "it ends within 0.mp4"),
        0: (0, "empty file"),
    }
    write_shard(tmp_path / "next.tar", {"next.mp4": b"video", "next.txt": b"text"})
    for size, (samples, reason) in cuts.items():
        (tmp_path / "cut.tar").write_bytes(whole[:size])
        corpus = build_corpus({"kind": "webdataset", "shards": [f"{tmp_path}/{name}.tar" for name in ("cut", "next")]})
        *good, broken, following = read_all(corpus)
        assert good == [(str(index), "caption", bytes(2000)) for index in range(samples)], size
        assert broken == (f"{tmp_path}/cut.tar", f"it is not a complete, uncompressed tar file ({reason})")
        assert following == ("next", "text", b"video")
    damaged = bytearray(whole)
    damaged[sample : sample + 100] = b"x" * 100
    (tmp_path / "cut.tar").write_bytes(damaged)
    entries = read_all(build_corpus({"kind": "webdataset", "shards": f"{tmp_path}/{{cut,no}}.tar"}))
    assert [entry[0] for entry in entries] == ["0", f"{tmp_path}/cut.tar", f"{tmp_path}/no.tar"]
    assert entries[1][1] == "it is not a complete, uncompressed tar file (it has no end mark)"
    assert entries[2][1] == "it cannot be read (No such file or directory)"
    (tmp_path / "cut.tar").write_bytes(gzip.compress(whole))
    (entry,) = read_all(build_corpus({"kind": "webdataset", "shards": f"{tmp_path}/cut.tar"}))
    assert entry[1].startswith("it is not a complete, uncompressed tar file (")


def test_shard_patterns(tmp_path):
    assert expand_shards("s/{08..11}-{a,b}.tar") == [f"s/{n}-{c}.tar" for n in ("08", "09", "10", "11") for c in "ab"]
    assert expand_shards(["{9..10}.tar", "x.tar"]) == ["9.tar", "10.tar", "x.tar"]
    write_files(tmp_path, **dict.fromkeys(("b.tar", "a.tar", "c.txt", "d/e.tar"), b""))
    assert expand_shards(f"{tmp_path}/**/*.tar") == [f"{tmp_path}/{name}.tar" for name in ("a", "b", "d/e")]


def test_a_decoder_reads_a_video_within_a_shard(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (3, 16, 16, 3), np.uint8)
    write_video(tmp_path / "1.mp4", frames, fps=5)
    write_shard(tmp_path / "0.tar", {"0.mp4": b"x" * 999, "1.mp4": (tmp_path / "1.mp4").read_bytes()})
    corpus = build_corpus({"kind": "webdataset", "shards": str(tmp_path / "0.tar"), "captions": None})
    decoded = []
    for source in (str(tmp_path / "1.mp4"), corpus.item(1).open()):
        with av.open(source) as container:
            decoded.append(np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]))
    assert decoded[0].shape == frames.shape
    np.testing.assert_array_equal(decoded[0], decoded[1])


def test_threads_and_pickled_corpora_read_the_same(tmp_path):
    contents = {f"{index}.mp4": os.urandom(3000) for index in range(20)}
    captions = {f"{index}.txt": b"caption %d" % index for index in range(20)}
    folder = write_files(tmp_path / "videos", **contents, **captions)
    write_shard(tmp_path / "0.tar", dict(sorted({**contents, **captions}.items())))
    rows = "\n".join([HEADER, *(f"{index},u,d,.,caption {index}" for index in range(20))])
    for config in (
        write_table(tmp_path, rows),
        {"kind": "folder", "folder": folder},
        {"kind": "webdataset", "shards": str(tmp_path / "0.tar")},
    ):
        corpus = build_corpus(config)
        expected = {(str(i), f"caption {i}", contents[f"{i}.mp4"]) for i in range(20)}
        assert set(read_all(corpus)) == expected
        with ThreadPoolExecutor(8) as pool:
            for entries in pool.map(read_all, [corpus, pickle.loads(pickle.dumps(corpus))] * 4):
                assert set(entries) == expected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, r"^config.corpus.kind is None; it may be csv, folder, webdataset, tfds$"),
        ({"kind": "zip"}, r"^config.corpus.kind is 'zip'; it may be"),
        ({"kind": "csv", "folder": "."}, r"^config.corpus.file is missing; a corpus of kind csv needs it$"),
        (
            {"kind": "folder", "folder": ".", "caption": None},
            r"^config.corpus.caption is unknown; a corpus of kind folder has folder, media, captions$",
        ),
        ({"kind": "folder", "folder": "/no"}, r"^config.corpus.folder is '/no', but there is no such folder$"),
        ({"kind": "folder", "folder": 5}, r"^config.corpus.folder is '5', but there is no such folder$"),
        ({"kind": "csv", "file": "/no", "folder": "."}, r"^config.corpus.file is '/no', but there is no such file$"),
        (
            {"kind": "csv", "file": __file__, "folder": ".", "suffix": "mp4"},
            r"^config.corpus.suffix is 'mp4'; it may be",
        ),
        ({"kind": "folder", "folder": ".", "media": "audio"}, r"^config.corpus.media is 'audio'; .* videos or images$"),
        (
            {"kind": "folder", "folder": ".", "captions": "json"},
            r"^config.corpus.captions is 'json'; it may be 'txt', a",
        ),
        (
            {"kind": "folder", "folder": ".", "captions": "no.jsonl"},
            r"^config.corpus.captions is 'no.jsonl', but there",
        ),
        ({"kind": "webdataset", "shards": "/no/*.tar"}, r"^config.corpus.shards is '/no/\*.tar', but there is no such"),
        (
            {"kind": "webdataset", "shards": "x", "captions": "txt"},
            r"^config.corpus.captions is 'txt'; it may be a list",
        ),
    ],
)
def test_errors_name_the_wrong_field(config, message):
    with pytest.raises(ValueError, match=message):
        build_corpus(config)


def test_workers_import_little():
    code = "import sys, videogen_jax.data.corpora; print([m for m in sys.modules if m in sys.argv])"
    names = ["jax", "PIL", "av", "absl", "tensorflow_datasets", "array_record"]
    assert subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True).stdout == "[]\n"


def test_bad_items_can_be_pickled():
    error = pickle.loads(pickle.dumps(BadItem("clip \udce9", "its caption is empty")))
    assert (error.id, str(error)) == ("clip \\udce9", "its caption is empty")
