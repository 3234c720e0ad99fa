"""Records as people have them, in one pool: text alone, one picture, three; a system prompt, several turns, any size."""

import random

from pictures import COLORS, write_records
from PIL import Image

SIZES = ((64, 64), (640, 480), (120, 300), (4000, 200), (333, 65))


def write_mixed(folder, rows: int = 60, seed: int = 0) -> str:
    """Write so many records with their pictures into a folder, as LLaVA ships them; returns the JSON's path."""
    rng, records, pictures = random.Random(seed), [], {}
    for number in range(rows):
        names = [f"{number}-{k}.png" for k in range((0, 1, 1, 3)[number % 4])]
        colors = [rng.choice(list(COLORS)) for _ in names] or [rng.choice(list(COLORS))]
        for k, (name, color) in enumerate(zip(names, colors)):
            pictures[name] = Image.new("RGB", SIZES[(number + k) % len(SIZES)], COLORS[color])
        marks = "<image>\n" * len(names)
        turns = [(f"{marks}what color is it?" if names else f"what is {colors[0]}?", f"it is {colors[0]}")]
        turns += [("and is it a color?", "yes it is"), ("sure?", "yes")][: number % 3]
        said = [{"from": who, "value": text} for pair in turns for who, text in zip(("human", "gpt"), pair)]
        if number % 5 == 1:
            said.insert(0, {"from": "system", "value": "answer in a few words"})
        image = {} if not names else {"image": names[0] if len(names) == 1 else names}
        records.append({"id": f"m{number}", "conversations": said} | image)
    return write_records(folder, records, pictures)


def texts(rows: int = 60) -> list[str]:
    """Return the words of such records, for a tokenizer."""
    return [f"what color is it? it is {c} and is it a color? yes sure? answer in a few words" for c in COLORS] * rows
