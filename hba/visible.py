"""Text that others chose, made harmless for a terminal."""

from __future__ import annotations


def visible(text: str) -> str:
    """`text` on one line, with every character that is not printed but obeyed shown as its escape (`\\x1b`, `\\u202e`).

    That is all Python calls not printable: control characters (C0, DEL, C1), the end of a line included; what orders
    text from right to left; other invisible format characters; line separators; surrogates, which UTF-8 has not.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
