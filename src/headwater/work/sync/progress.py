"""What a scan has found so far, counted in committed rows."""

from typing import Any

from headwater.catalog.sync.scans import Scan
from headwater.work.sync.batches import BATCH_KEYS


def progress(scan: Scan) -> dict[str, Any]:
    """On the wire as the command's `spec.sync`. What was listed never goes back while it runs.

    `secondsLeft` is known when the dataset was synced before; a bucket does not tell how much it holds.
    """
    is_running = scan.state == "running"
    per_s = scan.objects_per_s if is_running else None
    return {
        "listed": scan.shown if is_running else scan.listed,
        "created": scan.created,
        "changed": scan.changed,
        "unchanged": scan.unchanged,
        "returned": scan.returned,
        "keptDeleted": scan.kept_deleted,
        "skipped": scan.skipped,
        "missing": scan.gone,
        "marked": scan.marked,
        "held": scan.state == "held",  # the brake: nothing was marked
        "objectsPerSecond": None if per_s is None else round(per_s),
        "secondsLeft": round((scan.present - scan.listed) / per_s) if per_s and scan.present > scan.listed else None,
    }


def percent(scan: Scan) -> float:
    """An estimate: nobody knows how many objects a bucket has before it is listed. Never 100 before the end."""
    if scan.present:
        return min(99.0, 100.0 * scan.listed / scan.present)
    return min(99.0, 100.0 * scan.listed / (scan.listed + 4 * BATCH_KEYS))
