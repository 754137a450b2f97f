"""Fair shares at the leader: who used how much of late, in all homes, and what that makes of a rank.

A home tells its decayed charges by account and user every so often; the leader adds them up. The factor is that of
Slurm's multifactor plugin, taken twice: 2^-(used / share) for the account among accounts, times the same for the user
among those of the account, where both are parts of what all used. It is 1 for who used nothing, and falls towards 0.
Soft: a new leader starts with factors of 1 until the homes have told.
"""

from __future__ import annotations

from collections import defaultdict

from scheduler.settings import Account, Settings, User

NOTABLE = 0.01
Charge = tuple[str, str, float]


class Shares:
    """Charges by home, and the factors that follow."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._homes: dict[str, tuple[Charge, ...]] = {}
        self._accounts: dict[str, float] = {}
        self._users: dict[str, dict[str, float]] = {}

    def clear(self) -> None:
        """A reign begins or ends."""
        self._homes.clear()
        self._accounts.clear()
        self._users.clear()

    def on_spent(self, home: str, charges: tuple[Charge, ...]) -> None:
        """A home's charges, instead of what it said before."""
        self._homes[home] = charges
        users: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for each in self._homes.values():
            for account, user, charge_s in each:
                users[account][user] += charge_s
        self._users = {account: dict(each) for account, each in users.items()}
        self._accounts = {account: sum(each.values()) for account, each in users.items()}

    def factor(self, account: str, user: str) -> float:
        """Return how well this user is to be served, from 0 to 1."""
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
