"""The 1,014 emoji of docs/composing.md as PNGs, one folder per kind, drawn from Debian's font fonts-noto-color-emoji.

python docs/composing/emoji.py emoji
"""

import sys
from itertools import product
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
RANGES = {
    "animals": [(0x1F400, 0x1F43E), (0x1F980, 0x1F9AE), (0x1F577, 0x1F578)],
    "faces": [(0x1F600, 0x1F644), (0x1F910, 0x1F917), (0x1F920, 0x1F92F), (0x1F970, 0x1F97A), (0x1F9D0, 0x1F9D0)],
    "food": [(0x1F32D, 0x1F37F), (0x1F950, 0x1F96F), (0x1F9C0, 0x1F9CB)],
    "things": [(0x1F380, 0x1F393), (0x1F3A0, 0x1F3C1), (0x1F484, 0x1F4FF), (0x1F525, 0x1F53D)],
    "places": [(0x1F300, 0x1F32C), (0x1F3D4, 0x1F3F0), (0x1F680, 0x1F6A4)],
    "people": [(0x1F440, 0x1F483), (0x1F645, 0x1F64F), (0x1F930, 0x1F93E), (0x1F9D1, 0x1F9DF)],
}
LETTERS = [chr(code) for code in range(0x1F1E6, 0x1F200)]  # two of them are a flag


def main(output: Path) -> None:
    """Write every emoji of RANGES, and every flag, that the font has, once."""
    texts = {kind: [chr(code) for a, b in ranges for code in range(a, b + 1)] for kind, ranges in RANGES.items()}
    texts["flags"] = [first + second for first, second in product(LETTERS, LETTERS)]
    font, seen = ImageFont.truetype(FONT, 109), set()
    for kind in sorted(texts, key=["animals", "faces", "flags", "food", "things", "places", "people"].index):
        (output / kind).mkdir(parents=True, exist_ok=True)
        for text in texts[kind]:
            image = Image.new("RGBA", (136, 128), (255, 255, 255, 0))
            ImageDraw.Draw(image).text((0, 0), text, font=font, embedded_color=True)
            pixels = image.tobytes()
            if font.getlength(text) <= 140 and image.getbbox() and pixels not in seen:
                image.save(output / kind / ("-".join(f"{ord(letter):x}" for letter in text) + ".png"))
                seen.add(pixels)
    print(f"{len(seen)} emoji in {output}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
