"""What the answers say: prose, YAML or JSON about laser cleaning, the same for the same request.

``Repeat exactly:`` in the last message is answered with the text after it, so that a test can
predict an answer. What a scenario has as ``content`` may quote the prompt's lines. To add a
shape, write one function and name it in `compose`.
"""

import random
import re
from collections.abc import Callable

import msgspec

from zbeam_daemon.standin.tokens import CHARACTERS

REPEAT = "Repeat exactly:"
MATERIALS = (
    "aluminum", "bronze", "brass", "copper", "titanium", "steel", "iron", "nickel", "zinc",
    "granite", "marble", "limestone", "sandstone", "brick", "concrete", "glass", "oak", "walnut",
    "ceramic", "gold", "silver", "magnesium", "tungsten", "slate", "alabaster", "porcelain",
)  # fmt: skip
SENTENCES = (
    "Laser cleaning removes oxides from {m} without touching the base material.",
    "At a wavelength of 1064 nm, {m} reflects part of the pulse, so the fluence is raised slowly.",
    "A pulse of 100 ns keeps the heat at the surface of {m} and leaves the bulk cold.",
    "Operators check the first pass on {m} under magnification before they widen the scan.",
    "The ablation threshold of the contamination lies well below the damage threshold of {m}.",
    "No solvent is used, and the residue from {m} is drawn off at the nozzle.",
    "Overlap between spots decides how even the finish on {m} will look.",
    "Thin coatings on {m} need two passes at low power rather than one at high power.",
    "For restoration work on {m}, the repetition rate stays at 20 kHz or less.",
    "A matte finish on {m} shows that the energy density was a little too high.",
)
THOUGHTS = (
    "The question is about {m}, so the optical properties come first.",
    "We need the absorption of {m} at the usual wavelengths.",
    "Next, compare the thresholds for {m} and for what covers it.",
    "The answer should stay short and name one safe setting for {m}.",
    "Check that no claim about {m} contradicts the figures.",
)
DEFAULT_TOKENS = 120
REASONING_TOKENS = {"low": 12, "high": 40, "max": 96}

_QUOTE = re.compile(r"\$\[([^\[\]\n]+)\]")
_MATERIAL = re.compile(r"\b(" + "|".join(MATERIALS) + r")\b", re.IGNORECASE)
_ASKS_JSON = re.compile(r"\bjson\b", re.IGNORECASE)
_ASKS_YAML = re.compile(r"\b(yaml|frontmatter)\b", re.IGNORECASE)


def material_in(prompt: str) -> str:
    """The material that the prompt names, or a general word."""
    found = _MATERIAL.search(prompt)
    return found.group(1).lower() if found else "metal"


def repeated(prompt: str) -> str | None:
    """The text after ``Repeat exactly:``, with the spaces around it removed."""
    _, mark, text = prompt.partition(REPEAT)
    return text.strip() if mark else None


def quoting(text: str, prompt: str) -> str:
    """`text` with each ``$[Name]`` replaced by what follows ``Name:`` on a line of the prompt.

    A name that no line begins with stays as it is.
    """

    def quoted(mark: re.Match[str]) -> str:
        line = re.search(rf"^{re.escape(mark[1])}:[ \t]*(.*)$", prompt, re.MULTILINE)
        return line[1].strip() if line else mark[0]

    return _QUOTE.sub(quoted, text)


def prose(seed: int, material: str, length: int, sentences: tuple[str, ...] = SENTENCES) -> str:
    """Prose of exactly `length` characters, chosen by `seed`."""
    choose = random.Random(seed)  # noqa: S311 - a repeatable choice, no secret
    parts: list[str] = []
    have = 0
    while have < length:
        parts.append(choose.choice(sentences).format(m=material))
        have += len(parts[-1]) + 1
    return " ".join(parts)[:length]


def reasoning(seed: int, prompt: str, tokens: int) -> str:
    """What the model thinks before it answers: exactly `tokens` tokens."""
    return prose(seed ^ 1, material_in(prompt), tokens * CHARACTERS, THOUGHTS)


def compose(seed: int, prompt: str, *, json_object: bool, tokens: int | None) -> str:
    """The answer to `prompt` (the last message's text); `tokens` sets its length.

    JSON and YAML grow in their description, so they stay valid and still have that length when
    it is enough for the document itself.
    """
    if (text := repeated(prompt)) is not None:
        return text
    material = material_in(prompt)
    length = (tokens or DEFAULT_TOKENS) * CHARACTERS
    shape: Callable[[int, str, str], str]
    if json_object or _ASKS_JSON.search(prompt):
        shape = _json
    elif _ASKS_YAML.search(prompt):
        shape = _frontmatter if "frontmatter" in prompt.lower() else _yaml
    else:
        text = prose(seed, material, length)
        return text if tokens else text[: text.rindex(".") + 1]  # it ends where a sentence does
    room = length - len(shape(seed, material, ""))
    return shape(seed, material, prose(seed, material, max(room, CHARACTERS)))


def _figures(seed: int) -> dict[str, float]:
    choose = random.Random(seed)  # noqa: S311 - a repeatable choice, no secret
    return {
        "wavelength_nm": 1064,
        "power_w": choose.randrange(50, 300, 10),
        "pulse_ns": choose.randrange(10, 200, 10),
        "fluence_j_cm2": round(choose.uniform(0.5, 4.0), 1),
    }


def _json(seed: int, material: str, description: str) -> str:
    document = {
        "material": material,
        "title": f"Laser cleaning of {material}",
        "properties": _figures(seed),
        "description": description,
    }
    return msgspec.json.encode(document).decode()


def _yaml(seed: int, material: str, description: str) -> str:
    figures = "\n".join(f"  {name}: {value}" for name, value in _figures(seed).items())
    return (
        f"material: {material}\ntitle: Laser cleaning of {material}\n"
        f'properties:\n{figures}\ndescription: "{description}"\n'
    )


def _frontmatter(seed: int, material: str, description: str) -> str:
    return f"---\n{_yaml(seed, material, description)}---\n"
