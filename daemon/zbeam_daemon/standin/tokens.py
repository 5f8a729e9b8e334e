"""A stand-in for the tokenizer: four characters are one token.

Prompts, answers and events are counted by this one rule, so that usage always adds up and a test
can tell the numbers in advance. Slices of a str never split a code point, so every token is text.
"""

CHARACTERS = 4


def count(text: str) -> int:
    """How many tokens `text` is; only the empty text is 0."""
    return -(-len(text) // CHARACTERS)


def split(text: str) -> list[str]:
    """The tokens of `text`, in order; joined, they are `text` again."""
    return [text[i : i + CHARACTERS] for i in range(0, len(text), CHARACTERS)]
