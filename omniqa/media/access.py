"""What is opened, and how much of it is taken: the rules for files that nobody vouches for."""

import re
from dataclasses import dataclass
from pathlib import Path

from omniqa.errors import MediaError, UsageError

PICTURE_PIXELS = 2**26  # of one decoded frame: 8192 x 8192
STREAMS = 200
PACKETS = 20_000_000  # of one stream: 8 hours at 240 frames a second are 7 million
BLOCK_SAMPLES = 2**21  # of one decoded block of sound and each of its channels: 11 s at 192 kHz
SAMPLE_RATES = range(1000, 768_001)
CHANNELS = 64  # of a sound: as many as FFmpeg's layouts name
SILENCE_SECONDS = 3600  # filled in, in all, where the timestamps leave gaps
SOUND_SECONDS = 24 * 3600
GAP_SECONDS = 300  # in which no stream has anything, and beyond which a gap is cut out of the clock
STILL_SECONDS = 3600  # likewise, for a file that holds a picture alone: a slide may stand for long
LONGEST_FRAME = 24 * 3600  # seconds; what claims to last longer is not believed
CLIP_SECONDS = 30 * 24 * 3600
CLOCK_JUMPS = 1000  # of timestamps; files that have more are refused
MAX_DOWNLOAD = 4 * 10**9  # bytes of one address: some hours of video as the web has it
STALL_SECONDS = 60.0  # without any progress, after which a file is given up

_THREADED_PIXELS = 2**27  # in all frames that are decoded at a time, one in each thread

# Formats that hold their media themselves. Playlists and the like (hls, concat, dash, sdp, vobsub, …) would open what
# they name, and are left out; text (tty, srt) is in, to be told apart from what is damaged.
_FORMATS = (
    "aac,ac3,ac4,aiff,amr,amrnb,amrwb,ape,apng,asf,au,av1,avi,bink,bmp_pipe,caf,cavsvideo,dirac,dnxhd,dsf,dts,dtshd,"
    "dv,dxa,eac3,evc,exr_pipe,flac,flic,flv,g722,gif,gif_pipe,gsm,gxf,h261,h263,h264,hevc,iff,image2,iv8,ivf,ivr,"
    "j2k_pipe,jpeg_pipe,jpegxl_anim,jpegxl_pipe,live_flv,loas,m4v,matroska,mjpeg,mlp,mm,mov,mp3,mp4,mpc,mpc8,mpeg,"
    "mpegts,mpegvideo,mpjpeg,mtv,mxf,nsv,nut,obu,ogg,oma,png_pipe,ppm_pipe,pva,qcp,qoi_pipe,rl2,rm,roq,smk,sox,spdif,"
    "srt,swf,tak,thp,tiff_pipe,truehd,tta,tty,ty,vc1,vc1test,viv,voc,vvc,w64,wav,webm,webp_anim,webp_pipe,wtv,wv,xa,"
    "xwma,yuv4mpegpipe"
)
_PROTOCOLS = "file,pipe"
_NETWORK_FORMATS = "hls,dash,rtsp,sdp"
_NETWORK_PROTOCOLS = "http,https,httpproxy,tcp,tls,udp,rtp,rtsp,rtmp,crypto,data"
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class Access:
    """What the user says about opening a file.

    Attributes:
        audio_track: which of several, counted from 1; None takes the one that a player would.
        allow_network: addresses may be opened, by omniqa and by playlists.
        max_download: most bytes of an address that has to be copied first.

    Raises:
        UsageError: the track is below 1, or no byte may be copied.
    """

    audio_track: int | None = None
    allow_network: bool = False
    max_download: int = MAX_DOWNLOAD

    def __post_init__(self) -> None:
        if self.audio_track is not None and self.audio_track < 1:
            raise UsageError(f"Audio tracks are counted from 1; there is none {self.audio_track}.", field="audio_track")
        if self.max_download < 1:
            raise UsageError(f"A download takes at least one byte, not {self.max_download}.", field="max_download")

    def options(self) -> dict[str, str]:
        """FFmpeg's options for opening: which formats and protocols, and how much."""
        formats, protocols = _FORMATS, _PROTOCOLS
        if self.allow_network:
            formats, protocols = f"{formats},{_NETWORK_FORMATS}", f"{protocols},{_NETWORK_PROTOCOLS}"
        return {
            "format_whitelist": formats,
            "protocol_whitelist": protocols,
            "max_streams": str(STREAMS),
            "pattern_type": "none",  # "%d.png" is the name of one picture, not of many
            **decoder_limits(),
        }


DEFAULT_ACCESS = Access()


def refused(address: str | Path) -> MediaError:
    """The error about an address that may not be opened."""
    return MediaError(
        f"{address} is an address.", field="allow_network", advice="omniqa opens it only with {allow_network=True}."
    )


def is_address(path: str) -> bool:
    """Whether a path is written as one of the network, with a scheme and `://`."""
    return _ADDRESS.match(path) is not None


def decoder_limits() -> dict[str, str]:
    """FFmpeg's options for a decoder, that refuse what would take all memory."""
    return {"max_pixels": str(PICTURE_PIXELS), "max_samples": str(BLOCK_SAMPLES)}


def decoder_threads(pixels: int) -> int:
    """How many threads may decode frames of a size: each holds one. 0 leaves it to FFmpeg."""
    return max(1, _THREADED_PIXELS // pixels) if pixels * 16 > _THREADED_PIXELS else 0
