"""Pictures show what the script says, at the times it says."""

from itertools import combinations, pairwise

import numpy as np
import pytest

from omniqa.nano.glyphs import GLYPHS
from omniqa.nano.picture import COLOUR_RGB, frame_at, frames
from omniqa.nano.scenes import BACKGROUNDS, DIGITS, LETTERS, MOTIONS, SHAPES, Scene, Script, Sign, Thing, draw
from tests.nano.seeing import background_of, colour_at, mask_of

SCRIPTS = [draw(seed, 8, 4) for seed in range(8)]


def still(*things, sign=None, noise=0.0):
    return Script(0, 4.0, (Scene(0.0, 4.0, "grey", noise, things, sign),), (), 0.0)


def alone(shape, colour="red", motion="nowhere", travel=0.0, size=0.25):
    return Thing(shape, colour, 0.5, 0.5, size, motion, travel, 4.0)


def test_the_same_script_gives_the_same_pictures():
    np.testing.assert_array_equal(frames(draw(3)), frames(draw(3)))
    assert (frames(draw(3)) != frames(draw(4))).any()


def test_pictures_are_uint8_at_even_times():
    made = frames(draw(3, 4, 1), fps=3, height=56, width=84)
    assert made.shape == (12, 56, 84, 3)
    assert made.dtype == np.uint8


def test_a_moment_looks_the_same_at_any_frame_rate():
    script = SCRIPTS[0]
    np.testing.assert_array_equal(frames(script, 2)[5], frames(script, 4)[10])
    np.testing.assert_array_equal(frames(script, 2)[5], frame_at(script, 2.5))


@pytest.mark.parametrize("size", [(168, 168), (112, 112), (140, 252)], ids=str)
def test_every_thing_has_its_colour_at_its_place(size):
    for script in SCRIPTS:
        for scene in script.scenes:
            for elapsed in (0.0, 0.7, scene.end - scene.start - 0.05):
                picture = frame_at(script, scene.start + elapsed, *size)
                assert background_of(picture) == scene.background
                assert [colour_at(picture, t, elapsed) for t in scene.things] == [t.colour for t in scene.things]


def test_nothing_hides_anything_or_leaves_the_picture():
    for script in SCRIPTS[:4]:
        for scene in script.scenes:
            for elapsed in (0.0, scene.end - scene.start - 0.05):
                picture = frame_at(script, scene.start + elapsed)
                for thing in scene.things:
                    if thing.colour != "white" or not scene.sign:
                        free = frame_at(still(alone(thing.shape, thing.colour, size=thing.size)), 0.0)
                        whole, seen = mask_of(free, thing.colour).sum(), mask_of(picture, thing.colour).sum()
                        assert abs(seen - whole) < 0.1 * whole + 20


def test_a_scene_ends_where_the_next_begins():
    for script in SCRIPTS:
        for scene, following in pairwise(script.scenes):
            before, after = frame_at(script, scene.end - 0.01), frame_at(script, scene.end)
            assert background_of(before) == scene.background
            assert background_of(after) == following.background
            first = following.things[0]
            assert colour_at(after, first, 0.0) == first.colour


def test_no_two_shapes_look_alike():
    masks = {shape: mask_of(frame_at(still(alone(shape)), 0.0), "red") for shape in SHAPES}
    for one, other in combinations(SHAPES, 2):
        assert (masks[one] & masks[other]).sum() < 0.86 * (masks[one] | masks[other]).sum(), (one, other)


@pytest.mark.parametrize(("motion", "way"), list(zip(MOTIONS, [(-1, 0), (1, 0), (0, -1), (0, 1), (0, 0)], strict=True)))
def test_things_move_the_way_they_are_said_to(motion, way):
    script = still(alone("square", motion=motion, travel=0.0 if motion == "nowhere" else 0.4, size=0.15))
    (y, x), (later_y, later_x) = (
        np.argwhere(mask_of(frame_at(script, t), "red")).mean(axis=0) / 168 for t in (0.5, 2.5)
    )
    np.testing.assert_allclose([later_x - x, later_y - y], np.array(way) * 0.2, atol=0.01)


def test_all_drawn_motions_can_be_seen():
    travels = [t.travel for script in SCRIPTS for s in script.scenes for t in s.things if t.motion != "nowhere"]
    assert min(travels) > 0.1  # of the picture: more than a patch of 14 pixels


def test_digits_and_letters_are_drawn_each_its_own():
    pictures = [frame_at(still(alone("square"), sign=Sign(text, 0.2, 0.2, 0.15)), 0.0) for text in (*DIGITS, *LETTERS)]
    inks = [mask_of(picture, "white") for picture in pictures]
    assert set(GLYPHS) == {*DIGITS, *LETTERS}
    assert all(100 < ink.sum() < 1200 for ink in inks)
    assert all((one ^ other).sum() > 30 for one, other in combinations(inks, 2))


def test_the_camera_is_as_noisy_as_the_script_says_and_never_twice_the_same():
    picture, later = (frame_at(still(alone("circle"), noise=8.0), time)[:20] for time in (0.0, 0.5))
    assert abs(picture[..., 0].std() - 8) < 0.5
    assert (picture != later).any()


def test_colours_and_backgrounds_are_drawn_all():
    scenes = [scene for seed in range(100) for scene in draw(seed, 8, 4).scenes]
    assert {scene.background for scene in scenes} == set(BACKGROUNDS)
    assert {thing.colour for scene in scenes for thing in scene.things} == set(COLOUR_RGB)
    assert {len(scene.things) for scene in scenes} == {1, 2, 3}
