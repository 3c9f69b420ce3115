"""The plots: one figure for each question, SVG, readable without colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from bench.targets import Tables

_OURS = {"goldlink, from the pool": "#b8860b", "goldlink, golden tree bound": "#d4a72c"}
_OTHERS = ("#1f4e79", "#2e75b6", "#5b9bd5", "#7f7f7f", "#a5a5a5", "#548235", "#833c0b", "#000000")
_MARKERS = "osD^v<>Px*"
_STATES = {"cold": "-", "incremental": "--", "warm": ":", "each pod": "-."}


def draw(tables: Tables, out: Path) -> None:
    """Draw every figure that there are rows for into `out`."""
    mpl.rcParams.update({
        "svg.hashsalt": "goldlink", "svg.fonttype": "none", "font.size": 10, "font.family": "sans-serif",
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3,
        "legend.frameon": False,
    })  # fmt: skip
    for name, table, figure in (
        ("delivery", "delivery", _delivery),
        ("calls", "rpc", _calls),
        ("feel", "feel", _feel),
        ("nodes", "nodes", _nodes),
        ("pods", "pod_starts", _pods),
    ):
        if tables.get(table):
            # No date inside, so that the file changes only when the figures do.
            figure(tables).savefig(out / f"{name}.svg", bbox_inches="tight", metadata={"Date": None})


def _delivery(tables: Tables) -> Figure:
    """Time until a tree is there, by number of files: every way of delivery."""
    figure = Figure(figsize=(8, 5))
    axes = figure.subplots()
    rows = [row for row in tables["delivery"] if row["what"] == "make"]
    others = iter(_OTHERS)
    last = []
    for number, way in enumerate(dict.fromkeys(str(row["way"]) for row in rows)):
        own = sorted((int(row["files"]), float(row["p50_ms"])) for row in rows if row["way"] == way)
        ours = way in _OURS
        axes.plot(
            [files for files, _ in own],
            [ms for _, ms in own],
            marker=_MARKERS[number % len(_MARKERS)],
            color=_OURS.get(way) or next(others),
            linewidth=2.5 if ours else 1.2,
            label=way,
        )
        last.append((own[-1][1], way))
    _log(axes, "files in the tree", "milliseconds, median")
    axes.yaxis.set_major_formatter(FuncFormatter(_milliseconds))
    axes.set_ylabel("time until the tree is there, median")
    # In the order of the lines' right ends, so that the legend can be read across.
    order = [way for _, way in sorted(last, reverse=True)]
    handles = dict(zip(axes.get_legend_handles_labels()[1], axes.get_legend_handles_labels()[0], strict=True))
    axes.legend([handles[way] for way in order], order, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.set_title("Time until a tree is delivered", loc="left")
    return figure


def _calls(tables: Tables) -> Figure:
    """Publish, unpublish and Probe, by number of files."""
    figure = Figure(figsize=(10, 3.8))
    panels = figure.subplots(1, 3, sharey=True)
    standing = max(int(row["standing"]) for row in tables["rpc"])
    cases = (
        ("pool hit", "hit", 0, 1),
        ("pool miss", "miss", 0, 1),
        (f"pool hit, {standing:,} volumes, 2 namespaces", "hit", standing, 2),
    )
    for axes, (title, *case) in zip(panels, cases, strict=True):
        for position, method in enumerate(("publish", "unpublish", "Probe")):
            own = sorted(
                (int(row["files"]), float(row["p50_ms"]), float(row["p99_ms"]))
                for row in tables["rpc"]
                if (row["method"], row["callers"], row["dentries"]) == (method, 1, "warm")
                and [row["pool"], row["standing"], row["namespaces"]] == case
            )
            colour = ("#b8860b", "#1f4e79", "#7f7f7f")[position]
            files = [one[0] for one in own]
            axes.plot(files, [one[1] for one in own], marker=_MARKERS[position], color=colour, label=f"{method}, p50")
            axes.plot(
                files, [one[2] for one in own], marker=_MARKERS[position], color=colour, linestyle=":",
                fillstyle="none", label=f"{method}, p99",
            )  # fmt: skip
        _log(axes, "files in the volume", "", (1, 2, 5))
        axes.set_title(title, loc="left", fontsize=10)
    panels[0].set_ylabel("time of the call")
    panels[0].yaxis.set_major_formatter(FuncFormatter(_milliseconds))
    panels[2].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _feel(tables: Tables) -> Figure:
    """Walking, reading and importing against the golden tree itself."""
    rows = tables["feel"]
    tasks = list(dict.fromkeys((str(row["task"]), str(row["state"])) for row in rows))
    views = [view for view in dict.fromkeys(str(row["view"]) for row in rows) if view != "golden tree itself"]
    figure = Figure(figsize=(8, 4.2))
    axes = figure.subplots()
    height = 0.8 / len(views)
    colours = ("#b8860b", "#d4a72c", "#1f4e79", "#7f7f7f")
    for number, view in enumerate(views):
        ratios = [
            next(float(row["ratio"]) for row in rows if (row["task"], row["state"], row["view"]) == (*task, view))
            for task in tasks
        ]
        places = [place + number * height for place in range(len(tasks))]
        bars = axes.barh(places, ratios, height * 0.9, color=colours[number % len(colours)], label=view)
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(
        [place + 0.4 - height / 2 for place in range(len(tasks))], [f"{task}, {state}" for task, state in tasks]
    )
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("time, relative to the golden tree itself (1 = the same)")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.set_title("What a pod feels", loc="left")
    return figure


def _nodes(tables: Tables) -> Figure:
    """Time until the last node is ready, and bytes from the origin, by number of nodes."""
    rows = tables["nodes"]
    cases = list(dict.fromkeys((int(row["files"]), int(row["archive_bytes"])) for row in rows))
    figure = Figure(figsize=(4.2 * len(cases) + 1, 7))
    panels = figure.subplots(2, len(cases), sharex=True, sharey="row", squeeze=False)
    for column, (files, size) in enumerate(cases):
        upper, lower = panels[0][column], panels[1][column]
        for number, (state, line) in enumerate(_STATES.items()):
            own = sorted(
                (int(row["nodes"]), float(row["last_ready_s"]), float(row["origin_bytes"]))
                for row in rows
                if (row["files"], row["archive_bytes"], row["state"]) == (files, size, state)
            )
            label = "without: each pod downloads" if state == "each pod" else f"goldlink, {state}"
            colour = "#1f4e79" if state == "each pod" else "#b8860b"
            nodes = [one[0] for one in own]
            style = {"linestyle": line, "color": colour, "marker": _MARKERS[number], "label": label}
            upper.plot(nodes, [one[1] for one in own], **style)
            if own[0][2]:
                lower.plot(nodes, [one[2] for one in own], **style)
        upper.set_title(f"{files:,} files, {size / 2**20:,.0f} MiB", loc="left", fontsize=10)
        for axes in (upper, lower):
            _log(axes, "", "", (1, 2, 5))
            axes.set_xticks([4, 16, 64, 256], ["4", "16", "64", "256"])
            axes.xaxis.set_minor_locator(NullLocator())
        lower.set_xlabel("nodes")
    panels[0][0].set_ylabel("until the last pod is ready")
    panels[0][0].yaxis.set_major_formatter(FuncFormatter(lambda seconds, _: _milliseconds(seconds * 1000, 0)))
    panels[1][0].set_ylabel("bytes from the origin")
    panels[1][0].yaxis.set_major_formatter(FuncFormatter(_bytes))
    panels[0][-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _pods(tables: Tables) -> Figure:
    """How many pods had started after how long, with a cache volume and with an emptyDir."""
    figure = Figure(figsize=(8, 3.5))
    axes = figure.subplots()
    rows = tables["pod_starts"]
    for column, label, colour in (
        ("cache_ms", "with a cache volume", "#b8860b"),
        ("emptydir_ms", "with an emptyDir", "#1f4e79"),
    ):
        ordered = sorted(float(row[column]) for row in rows)
        axes.step(ordered, range(1, len(ordered) + 1), where="post", marker="o", label=label, color=colour)
    axes.set_xlim(left=0)
    axes.set_xlabel("milliseconds from the creation of the pod to the first line of its container")
    axes.set_ylabel("pods that had started")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.set_title("Start of a pod", loc="left")
    return figure


def _log(axes: Axes, across: str, up: str, subs: tuple[int, ...] = (1,)) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(across)
    axes.set_ylabel(up)


def _milliseconds(value: float, _: int) -> str:
    if value >= 60_000:
        return f"{value / 60_000:g} min"
    return f"{value / 1000:g} s" if value >= 1000 else f"{value:g} ms"


def _bytes(value: float, _: int) -> str:
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= factor:
            return f"{value / factor:g} {unit}"
    return f"{value:g} B"
