"""Words for people, alike on a terminal, in a log and on a page."""


def count(number: int, noun: str) -> str:
    """1 line, 2 lines."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def visible(text: str) -> str:
    """`text` with control characters spelt out: an escape sequence in a producer's line must not reach the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
