"""The page docs/settings.md, made from the settings themselves."""

from datetime import timedelta

from app.settings import Settings


def as_markdown() -> str:
    """Give the page docs/settings.md: every setting with its default and meaning."""
    lines = [
        "# Settings",
        "",
        "Each is an environment variable, or a line in the `darkroom.env` of a state folder; the environment",
        "wins. Durations are ISO 8601 (`PT24H`) or seconds. This page is made by `darkroom settings`.",
        "",
        "| setting | default | meaning |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        default = "required" if field.is_required() else _shown(field.default)
        lines.append(f"| `DARKROOM_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines) + "\n"


def _shown(default: object) -> str:
    if default is None or default == ():
        return "none"
    if isinstance(default, timedelta):
        return f"{default.total_seconds():.15g} s"
    return f"`{default}`"
