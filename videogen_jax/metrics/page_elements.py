"""Pieces of HTML that the parts of a report share."""

import base64
from collections.abc import Iterable
from html import escape


def scrolling_table(label: str, caption: str, columns: Iterable[str], body: str, kind: str = "") -> str:
    """Return a table that scrolls by itself on a narrow screen, by keyboard too.

    Args:
      label: of the region, for screen readers; plain text.
      caption: HTML.
      columns: titles as plain text, "" for the corner.
      body: HTML of one `tbody` or more.
      kind: a class of the style sheet.
    """
    head = "".join(f'<th scope="col">{escape(name)}</th>' if name else "<td></td>" for name in columns)
    named = f' class="{kind}"' if kind else ""
    return (
        f'<div class="scroll" role="region" aria-label="{escape(label)}" tabindex="0"><table{named}>'
        f"<caption>{caption}</caption><thead><tr>{head}</tr></thead>{body}</table></div>\n"
    )


def data_url(kind: str, content: bytes) -> str:
    """Return a file's content as a data URL; kind: its media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
