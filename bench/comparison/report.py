# SPDX-License-Identifier: MIT
"""Tables, targets and plots of what was measured."""

import statistics


def wrong(result):
    return [f"{name} at {shape}" for shape, all_of in result["shapes"].items() for name, entry in all_of.items()
            if (entry["failure"] or "").startswith("wrong")]


def markdown(result):
    out = []
    for shape, entries in result["shapes"].items():
        out.append(f"## {shape}")
        for name, e in entries.items():
            s = list(e["samples"].values())
            out.append(f"{name}: {statistics.median(s) * 1e3 if s else None} ms, {e['failure']} {e['memory']} {e['deviation']}")
    return "\n".join(out)
