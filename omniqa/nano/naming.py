"""What the encoders learn before anything is asked: to name what is shown and heard, in words of the model's own head.

Each embedding is read as the decoder's last layer is, by its norm and lm_head. Video tokens say the colour, shape and
motion of what lies on them, or the sign; audio tokens the sounds and the word that are heard then. It takes the
encoders alone, so it is several times faster than answers, which are learned soon where things have names.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from omniqa.nano.batches import FPS, Media, Order, make_media
from omniqa.nano.blocks import BlockModel
from omniqa.nano.picture import centre, scene_at
from omniqa.nano.scenes import COLOURS, DIGITS, LETTERS, MOTIONS, SHAPES, SOUNDS, Script
from omniqa.nano.words import WORDS
from omniqa.sequence.units import POSITIONS_PER_SECOND

SEEN = (*COLOURS, *SHAPES, *MOTIONS, *DIGITS, *LETTERS)
HEARD = (*SOUNDS, *WORDS)
_RARE = 5.0  # weight of a name that is true, of which there are few


@dataclass(frozen=True)
class Named:
    """Clips, and what is true of each of their tokens.

    seen: (grids, hw, SEEN) float32, 1 where it lies on the token, NaN throughout where a scene ends inside the grid.
    heard: (audio tokens, HEARD) float32, 1 where it is heard then.
    """

    media: tuple[Media, ...]
    seen: Tensor
    heard: Tensor


def make_named(order: Order) -> Named:
    """Make clips and say what is in them, of the picture in the first grid only: the next would show little else."""
    scripts, media = make_media(order)
    pairs = [(script, _first_grid(one)) for script, one in zip(scripts, media, strict=True)]
    return Named(
        media=tuple(one for _, one in pairs),
        seen=torch.from_numpy(np.concatenate([_seen(script, one) for script, one in pairs])),
        heard=torch.from_numpy(np.concatenate([_heard(script, one) for script, one in pairs])),
    )


def _first_grid(media: Media) -> Media:
    shape = replace(media.shape, grid_times=media.shape.grid_times[:1])
    return replace(media, frames=media.frames[:2], shape=shape)


def _seen(script: Script, media: Media) -> NDArray[np.float32]:
    shape = media.shape
    names = np.zeros((shape.grids, shape.rows, shape.cols, len(SEEN)), np.float32)
    for grid, start in zip(names, shape.grid_times, strict=True):
        times = [float(start) + k / FPS for k in range(2)]
        scene, later = (scene_at(script, time) for time in times)
        if scene != later:
            grid[:] = np.nan
            continue
        for thing in scene.things:
            for time in times:
                covered = _covered(*centre(thing, time - scene.start), thing.size, *grid.shape[:2])
                for name in (thing.colour, thing.shape, thing.motion):
                    grid[..., SEEN.index(name)][covered] = 1
        if scene.sign:
            covered = _covered(scene.sign.x, scene.sign.y, scene.sign.size, *grid.shape[:2])
            grid[..., SEEN.index(scene.sign.text)][covered] = 1
    return names.reshape(shape.grids, shape.hw, len(SEEN))


def _covered(x: float, y: float, size: float, rows: int, cols: int) -> NDArray[np.bool_]:
    """(rows, cols), the tokens with their middle in a circle; where it is too small for any, the nearest one."""
    down, right = np.mgrid[:rows, :cols]
    distance = np.hypot((right + 0.5) / cols - x, (down + 0.5) / rows - y)
    return distance <= max(size, distance.min())


def _heard(script: Script, media: Media) -> NDArray[np.float32]:
    names = np.zeros((media.shape.audio_tokens, len(HEARD)), np.float32)
    for sound in script.sounds:
        tokens = slice(int(sound.start * POSITIONS_PER_SECOND), int(sound.end * POSITIONS_PER_SECOND) + 1)
        names[tokens, HEARD.index(sound.kind)] = 1
        if sound.word:
            names[tokens, HEARD.index(sound.word)] = 1
    return names


class Namer:
    """Reads names off the embeddings of a model's encoders."""

    def __init__(self, model: BlockModel) -> None:
        self.model = model
        encode = model.thinker.template.encode
        self.seen, self.heard = ([encode(f" {name}", False)[-1] for name in names] for names in (SEEN, HEARD))

    def names(self, named: Named) -> tuple[Tensor, Tensor]:
        """(grids, hw, SEEN) and (audio tokens, HEARD), float32: above 0 where it says so."""
        thinker, clips = self.model.thinker, named.media
        with torch.autocast(thinker.device.type, torch.bfloat16, enabled=self.model.bf16):
            norm, weight = thinker.decoder.norm, thinker.lm_head.weight
            seen = norm(self.model.encode_video(clips)) @ weight[self.seen].T
            heard = norm(self.model.encode_audio(clips)) @ weight[self.heard].T
        return seen.float().unflatten(0, (-1, clips[0].shape.hw)), heard.float()

    def loss(self, named: Named) -> Tensor:
        """Cross entropy of the names, a mean over video tokens and one over audio tokens, times the number of clips."""
        seen, heard = self.names(named)
        seen_true, heard_true = (truth.to(seen.device) for truth in (named.seen, named.heard))
        known = ~seen_true.isnan().flatten(1).any(1)
        return len(named.media) * (_mistaken(seen[known], seen_true[known]) + _mistaken(heard, heard_true))

    @torch.no_grad()
    def right(self, named: Named) -> tuple[float, float]:
        """Of the grids and of the audio tokens, the shares of which all names are right."""
        seen, heard = self.names(named)
        known = ~named.seen.isnan().flatten(1).any(1)
        pairs = ((seen[known].amax(1), named.seen[known].amax(1)), (heard, named.heard))
        grids, tokens = (float(((said.cpu() > 0) == (true > 0)).all(1).float().mean()) for said, true in pairs)
        return grids, tokens


def _mistaken(said: Tensor, truth: Tensor) -> Tensor:
    """Mean cross entropy; 0 where there is nothing to be named."""
    rare = torch.tensor(_RARE, device=said.device)
    return F.binary_cross_entropy_with_logits(said, truth, pos_weight=rare) if len(said) else said.sum()
