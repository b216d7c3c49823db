"""What every dialect does with HTTP, without a server: bodies at their limits, pydantic put into words."""

import io
from typing import Annotated, Any, Literal

import pytest
from flask import Flask, Request
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from app.api import http
from app.errors import BodyTooLarge, InvalidFields, MalformedBody

FLASK = Flask("test")
LIMIT = 64


class Wish(BaseModel):
    model_config = ConfigDict(frozen=True)

    text: Annotated[str, Field(min_length=1, max_length=5, pattern=r"\S"), http.NO_NUL]
    whole: Annotated[Annotated[int, Field(ge=1, le=4), http.JSON_NUMBER] | None, Field()] = None
    real: Annotated[Annotated[float, Field(ge=0, allow_inf_nan=False), http.JSON_NUMBER] | None, Field()] = (
        None
    )
    choice: Literal["a", "b"] | None = None


class Form(BaseModel):
    whole: Annotated[Annotated[int, Field(ge=1, le=400), http.FORM_NUMBER] | None, Field()] = None
    real: Annotated[Annotated[float, Field(allow_inf_nan=False), http.FORM_NUMBER] | None, Field()] = None


def incoming(body: bytes, *, announced: int | None, content_type: str = "application/json") -> Request:
    """A request as our WSGI server hands it over; chunked when no length is announced."""
    environ = {
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": content_type,
        "wsgi.input": io.BytesIO(body),
        "wsgi.input_terminated": True,
        **(
            {"HTTP_TRANSFER_ENCODING": "chunked"} if announced is None else {"CONTENT_LENGTH": str(announced)}
        ),
    }
    return http.TidyRequest(environ)


def problems(model: type[BaseModel], content: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(InvalidFields) as caught:
        http.parse(model, content)
    return {problem.field: problem.message for problem in caught.value.problems}


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_of_exactly_the_limit_is_read_and_one_byte_more_is_not(*, announced: bool) -> None:
    for length in (LIMIT, LIMIT + 1, LIMIT + 100):
        body = b'{"a":1}'.ljust(length)
        request = incoming(body, announced=length if announced else None)
        with FLASK.app_context():
            if length == LIMIT:
                assert http.read_json(request, limit=LIMIT) == {"a": 1}
            else:
                with pytest.raises(BodyTooLarge, match="at most 64 bytes"):
                    http.read_json(request, limit=LIMIT)


def test_a_body_that_ends_before_its_length_is_refused_though_it_is_whole_json() -> None:
    with FLASK.app_context(), pytest.raises(MalformedBody, match="ended after 7 of 20 bytes"):
        http.read_json(incoming(b'{"a":1}', announced=20), limit=LIMIT)


def test_a_form_that_ends_before_its_length_is_refused_though_its_parts_are_whole() -> None:
    body = b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--B--\r\n'
    form = "multipart/form-data; boundary=B"

    with FLASK.app_context():
        whole = incoming(body, announced=len(body), content_type=form)
        assert http.read_form(whole, limit=1000) == ({"a": "b"}, {})
        cut = incoming(body, announced=len(body) + 5, content_type=form)
        with pytest.raises(MalformedBody, match="ended after 59 of 64 bytes"):
            http.read_form(cut, limit=1000)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({}, {"text": "is required"}),
        ({"text": None}, {"text": "is required"}),
        ({"text": 1}, {"text": "must be a string"}),
        ({"text": ""}, {"text": "must not be empty"}),
        ({"text": " "}, {"text": "must not be blank"}),
        ({"text": "123456"}, {"text": "must have at most 5 characters"}),
        ({"text": "a\0"}, {"text": "must not contain NUL characters; remove them"}),
        ({"text": "a", "whole": 0}, {"whole": "must be at least 1"}),
        ({"text": "a", "whole": 5}, {"whole": "must be at most 4"}),
        ({"text": "a", "whole": 1.5}, {"whole": "must be a whole number"}),
        ({"text": "a", "whole": 1e300}, {"whole": "is out of all range; send a smaller number"}),
        ({"text": "a", "whole": "1"}, {"whole": "must be a JSON number, not a string"}),
        ({"text": "a", "whole": True}, {"whole": "must be a JSON number, not a boolean"}),
        ({"text": "a", "whole": []}, {"whole": "must be a JSON number, not a list"}),
        ({"text": "a", "real": {}}, {"real": "must be a JSON number, not an object"}),
        ({"text": "a", "real": float("nan")}, {"real": "must be a finite number"}),
        ({"text": "a", "choice": "c"}, {"choice": "must be one of 'a' or 'b'"}),
        ({"whole": "x", "real": "x"}, {
            "text": "is required",
            "whole": "must be a JSON number, not a string",
            "real": "must be a JSON number, not a string",
        }),
    ],
)  # fmt: skip
def test_each_wrong_field_is_told_in_plain_words(content: dict[str, Any], told: dict[str, str]) -> None:
    assert problems(Wish, content) == told


@given(
    st.dictionaries(
        st.sampled_from(["text", "whole", "real", "choice"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.none()),
    )
)
def test_whatever_is_sent_no_word_of_pydantics_comes_back(content: dict[str, Any]) -> None:
    with pytest.raises(InvalidFields) as caught:
        http.parse(Wish, {**content, "missing": None, "choice": 0})

    for problem in caught.value.problems:
        assert problem.message.startswith(("must ", "is "))
        assert "Input" not in problem.message


@pytest.mark.parametrize("text", ["3", "3.0", " 3 ", "+3"])
def test_numbers_of_forms_are_text(text: str) -> None:
    assert http.parse(Form, {"whole": text, "real": text}) == Form.model_construct(whole=3, real=3.0)


@pytest.mark.parametrize(
    "text", ["", "x", "1_0", "nan", "inf", "0x1", "1,5", "\u0661", "--1", "1e", "e1", "1 2"]
)
def test_what_only_python_takes_for_a_number_is_none(text: str) -> None:
    assert problems(Form, {"whole": text, "real": text}) == dict.fromkeys(
        ("whole", "real"), "must be a number in digits"
    )


def test_problems_found_elsewhere_are_told_together_and_once() -> None:
    sent_as_file = http.misplaced(Wish, {"picture": "x", "choice": "\ufffd"}, ["text"], uploads=["picture"])

    with pytest.raises(InvalidFields) as caught:
        http.parse(Wish, {}, besides=sent_as_file)

    assert [(problem.field, problem.message) for problem in caught.value.problems] == [
        ("choice", "must be text in UTF-8"),
        ("picture", "must be sent as a file part with a filename, not as text"),
        ("text", "must be sent as text, not as a file"),
    ]


def test_a_number_of_many_digits_is_refused_at_once_and_not_after_hours() -> None:
    with pytest.raises(InvalidFields) as refused:
        http.parse(Form, {"real": "1" * 400_000 + "x"})

    assert [problem.field for problem in refused.value.problems] == ["real"]
