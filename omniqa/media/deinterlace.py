"""Frames that hold two fields, half a frame apart in time, made whole pictures of their first field's moment.

bwdif, FFmpeg's, looks at the frames before and after. Of a frame without such neighbours its filter estdif looks at the
frame alone.
"""

from fractions import Fraction

import av

from omniqa.media.container import Timed

_SMALLEST = 16  # pixels a side, of what the filters take
_TICK = Fraction(1, 90_000)  # of the graph, which looks at nobody's time


def is_interlaced(frame: av.VideoFrame) -> bool:
    """Whether a frame is flagged as two fields, and large enough to be filtered."""
    return bool(frame.interlaced_frame) and min(frame.height, frame.width) >= _SMALLEST


def deinterlaced(before: Timed | None, timed: Timed, after: Timed | None) -> Timed:
    """An interlaced frame as a whole picture.

    Args:
        before: the frame decoded before it, if any; it counts only if it adjoins.
        timed: the frame.
        after: the one decoded after it, likewise.

    Raises:
        av.error.FFmpegError: it can't be filtered.
    """
    frames = [timed.frame]
    first = before is not None and _adjoin(before, timed)
    last = after is not None and _adjoin(timed, after)
    if before is not None and first:
        frames.insert(0, before.frame)
    if after is not None and last:
        frames.append(after.frame)
    graph = _graph(timed.frame, "bwdif" if first or last else "estdif")
    for frame in frames:
        graph.push(frame)
    if not last:
        graph.push(None)
    if first:
        graph.pull()
    return timed._replace(frame=graph.pull())


def _adjoin(one: Timed, other: Timed) -> bool:
    """Whether one frame follows the other without a gap, and looks like it."""
    a, b = one.frame, other.frame
    alike = (a.width, a.height, a.format.name) == (b.width, b.height, b.format.name)
    return alike and abs(other.start - one.end) < (one.end - one.start) * Fraction(3, 4)


def _graph(frame: av.VideoFrame, name: str) -> av.filter.Graph:
    """One picture out for each frame in; those that are not interlaced are handed on."""
    graph = av.filter.Graph()
    graph.threads = 1  # a graph is made for every frame; threads would cost more than they gain
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=_TICK)
    mode = "send_frame" if name == "bwdif" else "frame"
    chain = [source, graph.add(name, f"mode={mode}:deint=interlaced"), graph.add("buffersink")]
    graph.link_nodes(*chain)
    graph.configure()
    return graph
