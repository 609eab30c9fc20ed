"""The package's version; `major.minor` is the comparability epoch (DESIGN: results, versions)."""

VERSION = "0.2.0"
EPOCH = VERSION.rpartition(".")[0]


def epoch_order(epoch: str) -> tuple[int, ...]:
    """Return what sorts epochs by age, the newest last: "0.10" is newer than "0.9"."""
    return tuple(int(part) if part.isdecimal() else -1 for part in epoch.split("."))
