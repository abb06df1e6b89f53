"""The commit of the template that a service began with, or took in last."""

from contextlib import suppress

from chassis.development.upgrade.trees import VERSION_FILE, Repository, UpgradeError, version_of

RECORD = ".template"  # has the commit that the last upgrade took in


def find_base(template: Repository, newest: str, service: Repository) -> str:
    """The first that there is: the record, the history in common, the tag of the version that the
    service has, the commit with this version that is most like the service.
    """
    ours = service.ids("HEAD")
    history = template.git("rev-list", "--topo-order", newest).decode().split()
    if RECORD in ours:
        recorded = service.git("show", f"HEAD:{RECORD}").decode().strip()
        if recorded in history:
            return recorded
    else:
        own = set(service.git("rev-list", "HEAD").decode().split())
        if common := next((commit for commit in history if commit in own), None):
            return common
    version = version_of(service.git("show", f"HEAD:{VERSION_FILE}").decode())
    with suppress(UpgradeError):
        return template.commit(f"refs/tags/chassis-{version}")
    return _most_like(template, history, ours, version)


def _most_like(template: Repository, history: list[str], ours: dict[str, str], version: str) -> str:
    """It has the most files in common, those of equal content first. Of equal ones the oldest:
    what both sides have changed alike since then merges by itself.
    """
    best: tuple[int, int, str] | None = None
    for commit in history:
        theirs = template.ids(commit)
        file = theirs.get(VERSION_FILE)
        if file is None or version_of(template.git("cat-file", "blob", file).decode()) != version:
            continue
        equal = sum(ours.get(path) == content for path, content in theirs.items())
        common = len(ours.keys() & theirs.keys())
        if best is None or (equal, common) >= best[:2]:
            best = equal, common, commit
    if best is None:
        raise UpgradeError(
            f"No commit of the template has chassis {version}. "
            "Name the one that this service began with: BASE=commit or tag"
        )
    return best[2]
