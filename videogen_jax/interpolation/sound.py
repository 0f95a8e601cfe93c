"""Copying the sound of one file into another: packet by packet, or re-encoded if the container does not support it."""

import os
import warnings
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Self

import av
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import OutputContainer

ENCODERS = {"mp4": "aac", "webm": "libopus"}  # container format -> encoder for sound that is re-encoded
_OPUS_RATE = 48_000
_COPIED_METADATA = ("language", "title", "handler_name")


class Sound:
    """All sound streams of a file, copied to a container that is being written; for use in a `with` statement.

    Args:
      source: the file to copy from.
      container: the container to copy to, to which nothing has been written yet.
      origin: the time of the source, in seconds, that is 0 in the container.
    """

    def __init__(self, source: str | os.PathLike, container: OutputContainer, origin: Fraction):
        self._source = av.open(str(source), metadata_errors="ignore")
        self._container, self._origin = container, origin
        streams = self._source.streams.audio
        self._tracks = {stream.index: _track(stream, container) for stream in streams}
        self._packets = self._source.demux(streams) if streams else iter(())
        self._next = next(self._packets, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: Any) -> None:
        self._source.close()

    def write_until(self, time: Fraction | None) -> None:
        """Write the sound before `time`, in seconds of the container's clock; all remaining sound if None."""
        while self._next is not None:
            packet = self._next
            if packet.dts is not None:  # a packet without it marks the end of a stream
                if time is not None and packet.dts * packet.time_base - self._origin >= time:
                    return
                shift = round(self._origin / packet.time_base)
                packet.dts -= shift
                packet.pts = None if packet.pts is None else packet.pts - shift
                self._container.mux(self._tracks[packet.stream.index].packets(packet))
            self._next = next(self._packets, None)
        if time is None:
            for track in self._tracks.values():
                self._container.mux(track.flush())


class _CopiedTrack:
    """A stream whose packets are copied unchanged."""

    def __init__(self, stream: AudioStream):
        self._stream = stream

    def packets(self, packet: av.Packet) -> list[av.Packet]:
        packet.stream = self._stream
        return [packet]

    def flush(self) -> list[av.Packet]:
        return []


class _ReencodedTrack:
    """A stream that is decoded and re-encoded, in its channel layout and at its own rate (48 kHz for Opus)."""

    def __init__(self, source: AudioStream, container: OutputContainer, encoder: str):
        rate = _OPUS_RATE if encoder == "libopus" else source.rate
        self._source = source
        self._stream = container.add_stream(encoder, rate=rate, layout=source.layout.name)
        self._resampler: AudioResampler | None = None

    def packets(self, packet: av.Packet) -> Iterator[av.Packet]:
        for frame in self._source.codec_context.decode(packet):
            yield from self._encode(frame)

    def flush(self) -> Iterator[av.Packet]:
        for frame in self._source.codec_context.decode(None):
            yield from self._encode(frame)
        if self._resampler is not None:
            yield from self._encode(None)
        yield from self._stream.encode(None)

    def _encode(self, frame: av.AudioFrame | None) -> Iterator[av.Packet]:
        if self._resampler is None:
            context = self._stream.codec_context
            context.open()  # its frame size is not known before
            self._resampler = AudioResampler(context.format, context.layout, context.rate, context.frame_size)
        for part in self._resampler.resample(frame):
            yield from self._stream.encode(part)


def _track(stream: AudioStream, container: OutputContainer) -> _CopiedTrack | _ReencodedTrack:
    format_name, codec = container.format.name, stream.codec_context.name
    try:
        copy = container.add_stream_from_template(stream)
    except ValueError:  # PyAV's error if the format does not support the codec
        encoder = ENCODERS[format_name]
        message = f"a .{format_name} file does not support {codec} sound: it is re-encoded as {encoder}"
        warnings.warn(message, stacklevel=4)
        return _ReencodedTrack(stream, container, encoder)
    copy.metadata.update({key: stream.metadata[key] for key in _COPIED_METADATA if key in stream.metadata})
    return _CopiedTrack(copy)
