"""Fair shares at the leader: who used how much of late, in all homes, and what that makes of a rank.

A home tells its decayed charges by account and user every so often; the leader adds them up. The factor is that of
Slurm's multifactor plugin, taken twice: 2^-(used / share) for the account among accounts, times the same for the user
among those of the account, where both are parts of what all used. It is 1 for who used nothing, and falls towards 0.
Soft: a new leader starts with factors of 1 until the homes have told.

All waiting jobs of a user and account have one factor, so those of whom it did not move notably are not looked at; and
as a hundred thousand may be left, they are ranked anew by the slice, one a turn of the machine: an agent that did it at
once would answer nobody for seconds. Until its turn a job keeps its older rank.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import islice

from scheduler.settings import Account, Settings, User

NOTABLE = 0.01
SLICE = 100
KNOWN_MAX = 10_000
Charge = tuple[str, str, float]


class Shares:
    """Charges by home, the factors that follow, and which waiting jobs were ranked with older ones."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._homes: dict[str, tuple[Charge, ...]] = {}
        self._accounts: dict[str, float] = {}
        self._users: dict[str, dict[str, float]] = {}
        self._known: dict[tuple[str, str], float] = {}
        self._waiting: dict[tuple[str, str], dict[int, None]] = {}
        self._ranked: dict[tuple[str, str], float] = {}
        self._stale: dict[int, None] = {}

    def clear(self) -> None:
        """A reign begins or ends."""
        for each in (self._homes, self._accounts, self._users, self._known, self._waiting, self._ranked, self._stale):
            each.clear()

    def on_settings(self) -> None:
        """What accounts and users have for shares, or what a factor is worth, may have changed: all are stale."""
        self._known.clear()
        for jobs in self._waiting.values():
            self._stale.update(jobs)

    def on_spent(self, home: str, charges: tuple[Charge, ...]) -> None:
        """A home's charges, instead of what it said before."""
        self._homes[home] = charges
        users: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for each in self._homes.values():
            for account, user, charge_s in each:
                users[account][user] += charge_s
        self._users = {account: dict(each) for account, each in users.items()}
        self._accounts = {account: sum(each.values()) for account, each in users.items()}
        self._known.clear()
        for owner, jobs in self._waiting.items():
            if abs(self.factor(*owner) - self._ranked[owner]) > NOTABLE:
                self._ranked[owner] = self.factor(*owner)
                self._stale.update(jobs)

    # --- who waits

    @property
    def stale(self) -> bool:
        """Whether there are jobs to be ranked anew."""
        return bool(self._stale)

    def enter(self, account: str, user: str, job: int) -> None:
        """A job waits, ranked with its owner's factor of now."""
        owner = account, user
        self._waiting.setdefault(owner, {})[job] = None
        if owner not in self._ranked:
            self._ranked[owner] = self.factor(account, user)

    def leave(self, account: str, user: str, job: int) -> None:
        """A job waits no longer."""
        owner = account, user
        self._stale.pop(job, None)
        jobs = self._waiting.get(owner, {})
        jobs.pop(job, None)
        if not jobs:
            self._waiting.pop(owner, None)
            self._ranked.pop(owner, None)

    def take(self) -> list[int]:
        """Return the next slice of stale jobs, which are so no longer."""
        jobs = list(islice(self._stale, SLICE)) if self._stale else []
        for job in jobs:
            del self._stale[job]
        return jobs

    # --- factors

    def factor(self, account: str, user: str) -> float:
        """Return how well this user is to be served, from 0 to 1. Remembered until anything about it changes."""
        known = self._known.get((account, user))
        if known is None:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            known = self._known[account, user] = self._factor(account, user)
        return known

    def _factor(self, account: str, user: str) -> float:
        total = sum(self._accounts.values())
        users = self._users.get(account, {})
        mine = self._accounts.get(account, 0.0)
        if total <= 0 or mine <= 0:
            return 1.0
        accounts = {name: self._account_shares(name) for name in {*self._accounts, account}}
        of_account = (mine / total) / (accounts[account] / sum(accounts.values()))
        shares = {name: self._user_shares(name) for name in {*users, user}}
        of_user = (users.get(user, 0.0) / mine) / (shares[user] / sum(shares.values()))
        return float(2.0 ** -(of_account + of_user))

    def _account_shares(self, name: str) -> int:
        account = self._settings.get(Account, name)
        return account.shares if account is not None else 1

    def _user_shares(self, name: str) -> int:
        user = self._settings.get(User, name)
        return user.shares if user is not None else 1
