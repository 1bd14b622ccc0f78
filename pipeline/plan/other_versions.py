"""Work on a plan that other versions made: refused, or allowed and recorded in OUT.

Owns the rule and the record. What a part says of its own making is output/verify.py's to compare.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

from pipeline.errors import ConfigError
from pipeline.plan.layout import other_versions_uri, versions_uri
from pipeline.plan.plan import Plan, canonical_json
from pipeline.plan.versions import Versions, differing
from pipeline.storage.store import Store


def check_versions(
    plan: Plan, here: Versions, *, allowed: bool, out: str, store: Store, say: Callable[[str], None]
) -> None:
    """Before work on a plan that may be somebody else's, or older. What is allowed is recorded in OUT, and said.

    raises  ConfigError naming what differs, if it is not allowed
    """
    if not plan.versions:
        say("this plan is from before versions were kept: its parts may have been made with others than these")
        return
    changed = differing(dict(plan.versions), here)
    if not changed:
        return
    if not allowed:
        raise ConfigError(
            f"{out} was planned with other versions: {changed}. Masks may differ between them: install those it was "
            "planned with, or choose another out=, or mix them by run.allow_other_versions=true, which is recorded"
        )
    document = canonical_json(dict(here))
    uri = versions_uri(out, hashlib.sha256(document).hexdigest())
    store.put_if_absent(uri, document)
    say(f"resuming with other versions than the plan's: {changed}; {uri} records it")


def recorded_versions(out: str, store: Store) -> list[Versions]:
    """Those that somebody has allowed beside the plan's.

    raises  StorageError
    """
    found: list[Versions] = []
    for info in store.list(other_versions_uri(out)):
        try:
            found.append(dict(json.loads(store.read(info.uri))))
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{info.uri} is no record of versions ({error}); delete it") from error
    return found
