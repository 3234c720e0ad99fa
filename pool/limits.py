"""What one record may take: more of it is refused before it is held."""

from typing import Any

# of JSON; parsed it takes up to thirty times as much (a list of empty objects)
RECORD_BYTES = 16 << 20
# of a table's row, as Python holds it; and of all rows that are held at a time
ROW_BYTES = 64 << 20


def text_size(value: Any) -> int:
    """Return about how many characters a record holds."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(text_size, value.values())) + 8
    return sum(map(text_size, value)) + 8 if isinstance(value, list) else 8
