"""The T-maze: see a sign, walk a corridor where all places look alike, and turn as the sign said.

                                 goal, if the sign says north
    sign -> [0][1][2] ... [N-1] [N]      the junction
                                 goal, if it says south

    what is seen    at place 0 the sign: 0 1 1 (north) or 1 1 0 (south); in the corridor 1 0 1; at the junction 0 1 0
    actions         north, east, south, west: one place on, or no move where there is a wall
    rewards         4 for the turn to the goal, -0.1 for the other turn, -0.1 for a step into a wall, 0 for other steps
    end             after a turn at the junction, or after ``limit`` steps

Source: Bakker 2002, the maze without noise.  ``limit`` is ours, and he trains by another method, advantage learning.
"""
import itertools
from typing import NamedTuple

import numpy as np

from ..arguments import describe, positive
from .rewards import Episodes

NORTH, EAST, SOUTH, WEST = range(4)
GOAL, WRONG_TURN, WALL = 4.0, -0.1, -0.1
SIGN_NORTH, SIGN_SOUTH, CORRIDOR, JUNCTION = np.array([[0, 1, 1], [1, 1, 0], [1, 0, 1], [0, 1, 0]], float)


class Place(NamedTuple):
    """Where B episodes are."""
    goals: np.ndarray           # (B,) NORTH or SOUTH
    positions: np.ndarray       # (B,) integers from 0 to N


class TMaze:
    """B mazes at once.  It holds no state: the places go in and come out.

    corridor    N, the steps from the sign to the junction
    limit       steps after which an episode is over in any case; None: 2 * (N + 1)
    """
    observation_size, actions = 3, 4

    def __init__(self, corridor, *, limit=None):
        self.corridor = positive("corridor", corridor)
        self.limit = 2 * (self.corridor + 1) if limit is None else positive("limit", limit)
        if self.limit <= self.corridor:
            raise ValueError(f"limit: expected more than corridor={self.corridor}, or nobody can turn, got {limit}")

    def reset(self, B, rng):
        """B episodes at their start, each goal north or south with chance 1/2 -> Place"""
        return self.start(np.where(rng.random(positive("B", B)) < 0.5, NORTH, SOUTH))

    def start(self, goals):
        """goals (B,), each NORTH or SOUTH -> Place"""
        if not isinstance(goals, np.ndarray) or goals.ndim != 1 or not np.isin(goals, (NORTH, SOUTH)).all():
            raise ValueError(f"goals: expected an array (B,) of NORTH={NORTH} and SOUTH={SOUTH}, got {describe(goals)}")
        return Place(goals, np.zeros(len(goals), int))

    def observe(self, place):
        """What is seen: (B,3) float64"""
        goals, positions = (a[:, None] for a in place)
        sign = np.where(goals == NORTH, SIGN_NORTH, SIGN_SOUTH)
        return np.where(positions == 0, sign, np.where(positions == self.corridor, JUNCTION, CORRIDOR))

    def step(self, place, actions):
        """actions (B,) -> Place, rewards (B,), done (B,) bool"""
        goals, positions = place
        moved = np.clip(positions + (actions == EAST) - (actions == WEST), 0, self.corridor)
        turned = (positions == self.corridor) & ((actions == NORTH) | (actions == SOUTH))
        stood = moved == positions
        rewards = np.where(turned, np.where(actions == goals, GOAL, WRONG_TURN), np.where(stood, WALL, 0.0))
        return Place(goals, moved), rewards, turned

    def every_episode(self):
        """All that can happen -> Episodes (E,T,...), one for each goal and each sequence of actions until the end, and
        the goals' chances (E,), 1/2 each.  There are at most 2 * 4**limit: for short mazes."""
        actions = np.array(list(itertools.product(range(self.actions), repeat=self.limit)))
        goals = np.repeat([NORTH, SOUTH], len(actions))
        actions = np.tile(actions, (2, 1))
        place, alive, steps = self.start(goals), np.ones(len(goals), bool), []
        for t in range(self.limit):
            x = self.observe(place)
            place, rewards, done = self.step(place, actions[:, t])
            steps.append((x, np.where(alive, actions[:, t], 0), np.where(alive, rewards, 0.0), alive))
            alive = alive & ~done
        walked = Episodes(*(np.stack(arrays, axis=1) for arrays in zip(*steps)))
        # sequences that differ only after the end are one episode: what was done, and where it ended, tell them apart
        told = np.concatenate([goals[:, None], walked.actions, walked.mask], axis=1)
        _, once = np.unique(told, axis=0, return_index=True)
        return Episodes(*(array[once] for array in walked)), np.full(len(once), 0.5)

    def optimum(self, discount=1.0):
        """The best possible mean discounted return: N steps east, and the turn to the goal, 4 * discount**N."""
        return GOAL * discount ** self.corridor

    def memoryless_optimum(self, discount=1.0):
        """The best of a policy that sees only what is there now: go east and turn anyhow, 1.95 * discount**N.

        Why not more?  Leaving out a step into the wall never lowers a return: it saves 0.1 now, brings what follows one
        step nearer, and all that follows costs at most 0.1 a step.  So take a policy that goes east from the sign.
        Then nothing it does depends on the sign, and its turn is right with chance 1/2, not before step N."""
        return (GOAL + WRONG_TURN) / 2 * discount ** self.corridor
