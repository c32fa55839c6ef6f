"""What `fanfare prune` says: a line for each find, and one for all."""

from collections import Counter
from collections.abc import Sequence

from backend.prune import Find


def find_line(find: Find, *, dry_run: bool) -> str:
    """What goes, in one line."""
    verb = "would go" if dry_run else "gone"
    what = find.name if find.kind == "unfinished" else f"{find.owner} {find.name}"
    return f"{verb}: {what}, {find.kind}, {find.objects} objects, {_readable(find.bytes)}"


def finds_line(finds: Sequence[Find], *, dry_run: bool) -> str:
    """All of it, in one line."""
    owners = Counter(find.owner for find in finds if find.kind != "unfinished")
    whose = f"{owners['job']} jobs" + (f" and {owners['product']} products" if owners["product"] else "")
    objects, size = sum(find.objects for find in finds), sum(find.bytes for find in finds)
    verb = "Would delete" if dry_run else "Deleted"
    return f"{verb} {objects} objects of {whose}, {_readable(size)}."


def _readable(count: int) -> str:
    size, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{count} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
