"""Why a record or a picture is in no pool: a small fixed vocabulary, and the errors that carry it."""

from ..store.errors import InputError

IMAGE = "<image>"
REASONS = {
    "not_an_object": "the record is no JSON object",
    "key_twice": "an object of the record names a key twice",
    "record_too_large": "the record's text has more bytes than any record (16 MiB of JSON, 64 MiB of a table)",
    "no_conversations": "`conversations` is missing, empty or no list",
    "bad_turn": "a turn is no object with a text in `from` and `value`",
    "bad_role": "a turn is from neither human nor gpt",
    "not_alternating": "human and gpt do not take turns, or no gpt turn ends the conversation",
    "empty_answer": "every answer is empty: nothing could be trained",
    "bad_image": "the record's picture is named in no way that is read, twice, or lies inside the record",
    "unsupported_media": "the record has a video, a sound or another medium than pictures",
    "bad_system": "the record's system prompt is no text, or is given twice in different words",
    "bad_label": "`source` or `task` is neither a text nor a number",
    "too_many_images": "several turns carry <image>, but the record has one picture",
    "image_count": "the record has another number of pictures than of <image> marks",
    "bad_text": "the text holds characters that UTF-8 cannot (lone surrogates)",
    "duplicate": "a record with the same picture and turns came before",
    "image_outside_root": "the image path is absolute, climbs out of the root, or a link leads out",
    "image_missing": "no such image file",
    "image_not_a_file": "the image is a folder, a FIFO or a device",
    "image_empty": "the image file has no bytes",
    "image_too_large": "the image has more pixels or bytes than allowed",
    "image_truncated": "the image file is cut off",
    "image_unreadable": "the image cannot be decoded",
    "image_changed": "the image is another one than when the pool was made",
    "no_trained_token": "no answer token carries loss",
    "unscorable": "the record has no answer that the benchmark could score against",
    "not_encodable": "the record does not fit the model's length or the template",
    "no_image": "the row has no picture, so there is no attention to one",
    "no_question": "the question has no text of its own beside its pictures",
    "cut_by_length": "an endpoint's answer reached its length before it held anything that can be used",
    "content_filter": "an endpoint's filter held the answer back",
    "declined": "an endpoint's model declined to answer",
    "bad_request": "an endpoint refused the request itself",
    "no_answer": "no try brought an endpoint's answer",
    "under_way": "an endpoint was being asked when a run was killed, and is not asked again",
    "oversize_answer": "an endpoint's answer has more bytes than it may have",
    "not_finite": "a feature, or what the model says, became NaN or infinite",
}
# what a model makes of a row that is sound in itself, by name; it would refuse `UNFIT` ones
FINDINGS = {
    "picture_cut": "its last picture ends behind max_len: the model would refuse the row",
    "not_encodable": "the model's template or processor refuses the row",
    "untrained": "none of its answers lies within max_len, so it would train nothing",
    "answer_cut": "a part of its answers lies behind max_len and would not be trained",
}
UNFIT = ("picture_cut", "not_encodable", "untrained")


class RefusedError(InputError):
    """A record that cannot be used; `reason` is one of `REASONS`."""

    def __init__(self, reason: str, detail: str = "") -> None:
        assert reason in REASONS, reason
        super().__init__(detail or REASONS[reason])
        self.reason = reason

    def __reduce__(self) -> tuple[type["RefusedError"], tuple[str, str]]:
        """Travel between processes with the reason."""
        return type(self), (self.reason, str(self))


class ImageError(InputError):
    """A picture that cannot be used; `reason` is one of `REASONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str]]:
        """Travel between processes with the reason."""
        return type(self), (self.reason, str(self))
