"""What one container gets of what its job asked for beyond resources: mounts, files in memory, privileges.

Owns the secrets' files from before a container's start to its end. May not know: how a runtime carries anything out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import trio

from node.allowances import Allowances
from node.host.secret_files import SecretFiles
from node.job_secrets import JobSecrets
from node.runtime.protocol import ContainerSpec, Feature, UnsupportedError
from scheduler.model import Allocation


@dataclass(frozen=True, slots=True)
class Grants:
    """One node's allowances, keys and secrets' files."""

    allowances: Allowances
    keys: JobSecrets
    files: SecretFiles

    async def add(
        self, spec: ContainerSpec, allocation: Allocation, runtime: str, able: frozenset[Feature]
    ) -> ContainerSpec:
        """Return the spec with all that its job asked for. Raises NodeError, MountError, UnsupportedError, OSError."""
        secrets = allocation.spec.files.secrets
        if secrets and "secrets" not in able:
            raise UnsupportedError(runtime, ("secrets",))
        folder = None
        if secrets:
            contents = {each.name: self.keys.open(allocation.owner, each) for each in secrets}
            owners = {each.name: spec.user[0] if each.user_id is None else each.user_id for each in secrets}
            self.files.discard(spec.name)  # of a former agent that ended in the middle of this set-up
            folder = await trio.to_thread.run_sync(self.files.write, spec.name, contents, owners, spec.user_base)
        files, privileges = self.allowances.files(allocation, folder), self.allowances.privileges(allocation)
        if (files, privileges) == (spec.files, spec.privileges):
            return spec
        return replace(spec, files=files, privileges=privileges)

    def forget(self, name: str) -> None:
        """The container has ended, or will never start: its secrets go."""
        self.files.discard(name)

    def keep_only(self, names: Iterable[str]) -> None:
        """After a restart: the secrets of containers that are gone go too."""
        self.files.keep_only(names)
