"""The section of the page about data races, of a races.json beside the profile."""

from __future__ import annotations

from dsm._report import parts
from dsm._report.profile import Json


def section(found: Json) -> str:
    """Return the section.  Local."""
    return parts.section("races", "Data races", parts.paragraph(str(len(found.get("races", [])))))
