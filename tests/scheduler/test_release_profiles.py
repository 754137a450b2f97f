"""Releases and Profile against lists and sums."""

from __future__ import annotations

import itertools
import random
from math import inf

import pytest

from scheduler.profile import Profile, Releases


@pytest.mark.parametrize("seed", range(5))
def test_releases_answer_like_a_sorted_list(seed: int) -> None:
    rng = random.Random(seed)
    releases, plain, now = Releases(), [], 0
    for _ in range(2000):
        action = rng.random()
        if action < 0.6 or not plain:
            entry = (now + rng.randrange(1, 900), rng.randrange(1, 9))
            plain.append(entry)
            releases.add(*entry)
        elif action < 0.9:
            entry = plain.pop(rng.randrange(len(plain)))
            releases.remove(*entry)
        else:
            now += rng.randrange(40)
            assert releases.expire(now) == sum(amount for time, amount in plain if time <= now), f"seed {seed}"
            plain = [entry for entry in plain if entry[0] > now]
        wanted = rng.randrange(1, 2000)
        times = sorted({time for time, _ in plain})
        sums = [(time, sum(amount for each, amount in plain if each <= time)) for time in times[:1] + times[-1:]]
        assert releases.next_s == (times[0] if times else inf)
        found, total = releases.earliest(wanted)
        assert total == sum(amount for time, amount in plain if time <= found), f"seed {seed}"
        assert (found == inf) == (not sums or sums[-1][1] < wanted)
        if found < inf:
            assert sum(amount for time, amount in plain if time < found) < wanted <= total
    assert sum(amount for _, amount in releases.items()) == sum(amount for _, amount in plain)


def test_an_expectation_that_was_never_added_cannot_be_taken_back() -> None:
    releases = Releases()
    with pytest.raises(KeyError):
        releases.remove(3, 1)
    releases.add(5, 1)
    with pytest.raises(KeyError):
        releases.remove(3, 1)


@pytest.mark.parametrize("seed", range(5))
def test_a_profile_answers_like_an_array_of_seconds(seed: int) -> None:
    rng = random.Random(seed)
    profile, plain = Profile(0, 10), [10] * 400
    for _ in range(400):
        need, length = rng.randrange(1, 11), rng.randrange(1, 30)
        fitting = (at for at in range(300) if min(plain[at : at + length]) >= need)
        start = profile.earliest(need, length)
        assert start == next(fitting, start), f"seed {seed}"
        before = rng.randrange(0, 300)
        at = next((at for at in range(before) if min(plain[at : min(at + length, before)]) >= need), before)
        assert profile.earliest(need, length, before) == at, f"seed {seed}"
        if start + length < 300:
            profile.take(start, start + length, need)
            plain[start : start + length] = [each - need for each in plain[start : start + length]]
        else:
            profile.take(0, 300, profile.at(0) - 10 if min(plain[:300]) == max(plain[:300]) else 0)
        assert all(profile.at(second) == plain[second] for second in range(400))
    steps = list(profile.steps())
    assert all(one[1] != two[1] for one, two in itertools.pairwise(steps)), "equal steps are joined"
