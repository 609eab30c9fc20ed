"""The package's version; `major.minor` is the comparability epoch (DESIGN: results, versions)."""

VERSION = "0.1.0"
EPOCH = VERSION.rpartition(".")[0]
