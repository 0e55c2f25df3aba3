"""Captions from templates: several per class, one clause per object, joined by 'while' or 'and'."""

from collections.abc import Sequence

import numpy as np

PHRASES: dict[str, tuple[str, ...]] = {
    "basketball": ("a basketball bounces on the floor", "an orange rubber ball is dropped and bounces"),
    "marble": ("a glass marble drops and bounces on a table", "a small marble clicks as it bounces"),
    "wood_block": (
        "a mallet knocks on a wooden block",
        "someone taps a block of wood",
        "wood is struck by a mallet",
    ),
    "metal_plate": ("a hammer strikes a metal plate", "a hanging steel plate is hit and rings"),
    "wine_glass": ("a spoon taps a wine glass", "a glass is clinked with a spoon"),
    "drum": ("a stick beats a drum", "a drum is played", "someone hits a red drum"),
    "plastic_bucket": ("a stick hits a plastic bucket", "someone drums on an upturned plastic bucket"),
    "saw": ("a hand saw cuts through wood", "someone saws a plank back and forth"),
    "broom": ("a broom sweeps the floor", "someone sweeps with a broom"),
    "door_creak": ("a wooden door creaks on its hinge", "an old door squeaks open and shut"),
    "rolling_ball": ("a steel ball rolls on a track", "a heavy metal ball rolls back and forth"),
    "balloon_pop": ("a red balloon pops", "a balloon is blown up until it bursts"),
    "clap": ("two hands clap", "someone claps their hands"),
    "splash": ("a stone falls into the water with a splash", "a rock splashes into a pond"),
    "firework": ("a firework explodes in the sky", "a rocket rises and bursts into crackling sparks"),
    "rain": ("rain falls from a dark cloud", "it is raining on the ground", "a rain shower patters down"),
    "fire": ("a camp fire crackles", "flames rise from burning logs"),
    "wind": ("wind blows through a tree", "a tree sways in the gusting wind"),
    "engine": ("an engine revs and its wheel spins", "a motor turns a spoked flywheel"),
    "waterfall": ("a waterfall rushes over rocks", "water pours down into a pool"),
    "bird": ("a small bird chirps", "a yellow bird sings", "a bird tweets with open beak"),
    "dog": ("a dog barks", "a brown dog woofs loudly"),
    "frog": ("a green frog croaks", "a frog ribbits and its throat swells"),
    "bell": ("a brass bell swings and tolls", "a church bell rings"),
    "car_horn": ("a car honks its horn", "a car horn beeps and the lights flash"),
    "low_voice": ("a man with a beard speaks", "a deep voice talks", "a man says a few syllables"),
    "high_voice": ("a woman with long hair speaks", "a high voice talks", "a woman says a few syllables"),
}
JOINS = (" while ", " and ")


def caption(labels: Sequence[str], rng: np.random.Generator) -> str:
    """Describe the sounding objects in one sentence, the main one first."""
    clauses = [PHRASES[label][int(rng.integers(len(PHRASES[label])))] for label in labels]
    return JOINS[int(rng.integers(len(JOINS)))].join(clauses)
