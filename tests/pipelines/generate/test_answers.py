"""What becomes a record, and what a text that claims to see the picture must not say."""

import pytest
from captions import CONVERSATION, DETAIL, REASONING
from vinnow.pipelines.generate.answers import AnswerError, check, turns_of


def reason_of(kind, text, words=None):
    with pytest.raises(AnswerError) as raised:
        check(turns_of(kind, text, "What is it?"), words)
    return raised.value.reason


def test_the_three_forms():
    assert turns_of("conversation", CONVERSATION) == [
        ("What is in the grass?", "A red ball."),
        ("Who runs?", "A dog runs."),
    ]
    assert turns_of("detail", f"\n{DETAIL}\n\nMore.\n", "Describe it.") == [("Describe it.", f"{DETAIL}\n\nMore.")]
    ((question, answer),) = turns_of("reasoning", REASONING)
    assert question == "What will happen next?"
    assert answer.endswith("another throw.")


@pytest.mark.parametrize(
    "text",
    [
        "Question: a?\n===\nAnswer: b.",
        "question:\na?\n====\nanswer:\nb.\n===\n",
        "===\n**Question:**\na?\n===\n**Answer:**\nb.",
        "Question:\r\na?\r\n===\r\nAnswer:\r\nb.\r\n",
    ],
)
def test_forms_that_models_write(text):
    assert turns_of("reasoning", text) == [("a?", "b.")]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("conversation", "A dog."),
        ("conversation", ""),
        ("conversation", "Question:\na?"),
        ("conversation", "Question:\na?\n===\nQuestion:\nb?"),
        ("conversation", "Answer:\na.\n===\nQuestion:\nb?"),
        ("conversation", "Question:\na?\n===\nAnswer:\n"),
        ("conversation", "Question:\na?\nAnswer:\nb."),
        ("conversation", "Question:\na?\n===\nAnswer:\nb.\nQuestion:\nc?\nAnswer:\nd."),
        ("conversation", "Here you are:\n===\nQuestion:\na?\n===\nAnswer:\nb."),
        ("reasoning", CONVERSATION),
        ("detail", REASONING),
        ("detail", "Answer: a dog."),
    ],
)
def test_another_form_is_refused(kind, text):
    assert reason_of(kind, text) == "bad_form"


@pytest.mark.parametrize(
    "text",
    [
        "A dog at [0.123, 0.2, 0.3, 0.4].",
        "A dog (0.12, 0.50) runs.",
        "It begins at 0.344 of the width.",
        "The bounding box is large.",
        "Its bounding-boxes overlap.",
        "By its coordinates it is on the left.",
    ],
)
def test_coordinates_are_seen(text):
    assert reason_of("detail", text) == "quotes_coordinates"


@pytest.mark.parametrize(
    "text",
    [
        "The caption says that a dog runs.",
        "The captions differ.",
        "According to the description, it rains.",
        "The provided information does not say.",
        "The given image descriptions tell of a dog.",
        "This follows from the sentences provided.",
        "The description mentions a ball.",
        "It is not mentioned in the text.",
    ],
)
def test_talk_of_captions_is_seen(text):
    assert reason_of("detail", text) == "talks_of_captions"


@pytest.mark.parametrize(
    "text",
    [
        "It costs 0.75 dollars, and 12.5 % of 1.5 litres are left.",
        "Two dogs, 3 cats, at 10:30.",
        "A sign with the text STOP gives information to drivers.",
        "A box of apples, tied with a ribbon, is bound to fall.",
    ],
)
def test_what_a_picture_can_show_passes(text):
    check(turns_of("detail", text, "Describe it."), None)


def test_questions_are_checked_as_well_and_lengths_and_marks():
    assert reason_of("conversation", "Question:\nWhat do the captions say?\n===\nAnswer:\nNo.") == "talks_of_captions"
    assert reason_of("detail", "An <image> here.") == "image_mark"
    assert reason_of("detail", "one two", (3, 9)) == "wrong_length"
    assert reason_of("detail", "one two", (1, 1)) == "wrong_length"
    check(turns_of("detail", "one two", "q"), (2, 2))
