from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.catalogue.spoken import as_code, as_words, near_line


def test_a_spelled_code_is_read():
    assert as_code("code alpha seven four two") == "A742"


def test_typed_letters_and_numbers_count_as_themselves():
    assert as_code("code a 742") == "A742"


def test_people_say_oh_and_niner():
    assert as_code("x-ray oh niner") == "X09"


def test_a_code_that_is_missing_is_named_beside_its_neighbours():
    assert near_line("code alpha seven four two", ["A741", "A743"]) == "no A742; one symbol off: A741, A743"
    assert near_line(" a742", ["A741"]) == "no A742; one symbol off: A741"


def test_a_sentence_is_no_code():
    assert as_code("seven dwarfs") is None
    assert as_code("code") is None
    assert as_code("") is None


@given(st.text(alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-", min_size=1, max_size=32))
def test_saying_and_reading_are_inverse(code):
    assert as_code(as_words(code)) == code


@given(st.text())
def test_any_text_is_a_code_or_none(text):
    as_code(text)
