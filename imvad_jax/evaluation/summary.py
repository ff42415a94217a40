"""Means over categories, with a note on the categories that are missing."""

import math
from collections.abc import Mapping


def mean_over_categories(
    rows: Mapping[str, Mapping[str, float | None]],
) -> tuple[dict[str, float], dict[str, tuple[int, int]]]:
    """Returns the plain mean of each metric over the categories that have it.

    Args:
      rows: category name -> metric name -> value. A value that is NaN, None (as JSON stores NaN) or
        absent is left out of the mean.

    Returns:
      metric -> mean, NaN where no category has a value; and metric -> (categories in the mean,
      categories in all), so that a mean over fewer can be shown as such.
    """
    metrics = dict.fromkeys(name for row in rows.values() for name in row)
    means, counts = {}, {}
    for name in metrics:
        values = [row.get(name) for row in rows.values()]
        present = [float(v) for v in values if v is not None and not math.isnan(v)]
        # fsum: the mean does not depend on the order of the categories.
        means[name] = math.fsum(present) / len(present) if present else math.nan
        counts[name] = (len(present), len(rows))
    return means, counts
