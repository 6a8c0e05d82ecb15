"""Colours and fonts: one table for DOT, the SVG's classes, and the page."""

from __future__ import annotations

FONT = "Courier"
"""The font for layout, with the metrics of all monospaced fonts: an advance of 0.6 em."""
FAMILY = 'ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace'

LIGHT = {
    "paper": "#ffffff",
    "frame": "#f6f7f9",
    "block": "#fcfcfd",
    "edge": "#d4d9e0",
    "ink": "#1b2430",
    "muted": "#5d6877",
    "card": "#fefefe",
    "input-fill": "#fbf3dc",
    "input": "#8a6410",
    "forward-fill": "#e3eefb",
    "forward": "#1f5fa8",
    "backward-fill": "#fbe9e2",
    "backward": "#a8431f",
    "wrt-fill": "#f3e8f8",
    "wrt": "#7a3a9e",
    "saved": "#3f7051",
    "mark": "#0b6b50",
    "added": "#1a7f37",
    "added-fill": "#e0f4e5",
    "removed": "#b42318",
    "removed-fill": "#fdeae8",
    "changed": "#8f5600",
    "changed-fill": "#fff1d2",
    "renamed": "#4a52b8",
    "renamed-fill": "#ecedfb",
}
"""The light colours; each occurs once, so that a drawn colour identifies its variable."""

DARK = {
    "paper": "#12161c",
    "frame": "#1a2028",
    "block": "#161b22",
    "edge": "#39424e",
    "ink": "#e8edf3",
    "muted": "#9aa7b6",
    "card": "#202731",
    "input-fill": "#3a311a",
    "input": "#e3bd62",
    "forward-fill": "#1c3350",
    "forward": "#7db4f0",
    "backward-fill": "#472a20",
    "backward": "#f09a78",
    "wrt-fill": "#3a2747",
    "wrt": "#cf9bec",
    "saved": "#86c29b",
    "mark": "#5fd0ab",
    "added": "#57c979",
    "added-fill": "#15371f",
    "removed": "#ff8a80",
    "removed-fill": "#451c1a",
    "changed": "#f0b959",
    "changed-fill": "#423010",
    "renamed": "#a3abff",
    "renamed-fill": "#262a52",
}


def variables(colours: dict[str, str]) -> str:
    """Return the colours as CSS custom properties."""
    return " ".join(f"--{name}: {value};" for name, value in colours.items())


def stylesheet() -> str:
    """Return the rules of an SVG; they name no element outside `.graphc`."""
    fills = "\n".join(
        f".graphc .fill-{name} {{ fill: var(--{name}); }} "
        f".graphc .line-{name} {{ stroke: var(--{name}); }}"
        for name in LIGHT
    )
    return (
        f".graphc {{ {variables(LIGHT)} color-scheme: light dark; }}\n"
        "svg.graphc { max-width: 100%; height: auto; }\n"
        f"@media (prefers-color-scheme: dark) {{ .graphc {{ {variables(DARK)} }} }}\n"
        # A halo, so that a label can be read where lines pass behind it.
        ".graphc .saved text, .graphc .heading text "
        "{ paint-order: stroke; stroke: var(--frame); stroke-width: 4px; }\n"
        f".graphc text {{ font-family: {FAMILY}; white-space: pre; }}\n{fills}\n"
    )
