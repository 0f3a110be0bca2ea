import csv

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.catalogue.catalogue import SHIPPED, Catalogue, read_csv
from edge_runtime.core.errors import ConfigError, StorageError


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    with Catalogue(tmp_path_factory.mktemp("catalogue") / "catalogue.db") as made:
        yield made


def first(catalogue, text):
    hits = catalogue.search(text)
    return hits[0].item.code if hits else None


def test_a_new_catalogue_holds_the_shipped_sample(catalogue):
    assert len(catalogue) == len(read_csv(SHIPPED))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("code alpha seven four two", "A742"),
        ("a742", "A742"),
        ("oil", "D02"),
        ("smears of grease", "D02"),
        ("scratched", "D01"),
        ("bin full", "W11"),
        ("where is the compressor", "W12"),
    ],
)
def test_what_people_ask_is_found_first(catalogue, text, code):
    assert first(catalogue, text) == code


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("code alpha seven four four", ["A742", "A743"]),  # one changed
        ("bravo one eight", ["B118"]),  # one lost
        ("charlie three zero zero five", ["C305"]),  # one too many
        ("k551", ["K550"]),
        ("alpha seven four two", []),  # the very code
        ("bravo one eight one", []),  # two off
        ("grease", []),
        ("", []),
    ],
)
def test_codes_one_symbol_off_are_told_apart_from_what_is_found(catalogue, text, near):
    assert catalogue.near(text) == near
    assert not near or catalogue.search(text) == []


def test_a_symbol_alone_is_near_to_nothing_and_two_may_be_part_of_a_name(catalogue):
    assert catalogue.near("x") == [] and catalogue.near("one") == []
    assert catalogue.search("6 1")[0].item.name == "display glass 6.1 inch"
    assert catalogue.search("code six one") == []


def test_codes_near_a_very_common_one_are_few(tmp_path):
    (tmp_path / "c.csv").write_text("code,name\n" + "".join(f"A74{digit},part\n" for digit in range(9)))
    with Catalogue(tmp_path / "catalogue.db") as catalogue:
        catalogue.import_csv(tmp_path / "c.csv")
        assert catalogue.near("a749") == ["A740", "A741", "A742", "A743", "A744"]


def test_the_words_of_a_spelled_code_are_no_words_to_look_for(tmp_path):
    (tmp_path / "c.csv").write_text("code,name\nX1,alpha bracket\nX2,golf ball\nX3,valve 742\n")
    with Catalogue(tmp_path / "catalogue.db") as catalogue:
        catalogue.import_csv(tmp_path / "c.csv")
        assert catalogue.search("code alpha seven four two") == []
        assert [first(catalogue, text) for text in ("alpha", "golf", "742")] == ["X1", "X2", "X3"]


def test_the_very_code_stands_alone_and_certain(catalogue):
    hits = catalogue.search("bravo one one eight")
    assert [(hit.item.code, hit.score) for hit in hits] == [("B118", 1.0)]


def test_nothing_found_is_an_empty_list(catalogue):
    assert catalogue.search("zebra") == []


@given(st.text(max_size=200))
@settings(max_examples=150, deadline=None)
def test_any_text_can_be_asked(catalogue, text):
    hits = catalogue.search(text)
    assert all(0.0 <= hit.score <= 1.0 for hit in hits)
    assert not {hit.item.code for hit in hits if hit.why == "code"} & set(catalogue.near(text))


def test_import_replaces_everything_and_survives_a_restart(tmp_path):
    (tmp_path / "new.csv").write_text("code;name\nZ1;zeta bolt\n")
    with Catalogue(tmp_path / "catalogue.db") as catalogue:
        assert catalogue.import_csv(tmp_path / "new.csv") == 1
    with Catalogue(tmp_path / "catalogue.db") as again:
        assert [item.name for item in again.items()] == ["zeta bolt"]
        assert first(again, "bolt") == "Z1"
        assert again.search("oil") == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("code,title\nA1,x\n", "no column name"),
        ("code,name,colour\nA1,x,red\n", "unknown column colour"),
        ("code,name\nA 1,x\n", "line 2: code 'A 1'"),
        ("code,name\nA1,\n", "A1 has no name"),
        ("code,name\nA1,x\na1,y\n", "stands there twice"),
        ("code,name\nA1,x,y\n", "another number of fields"),
        ("code,name,kind\nA1,x,toy\n", "kind 'toy'"),
        ("code,name\n", "no rows"),
        ("", "no column code"),
        ('code,name\nA1,"open\n', "check the quotes"),
    ],
)
def test_a_wrong_file_is_refused_and_nothing_is_lost(tmp_path, text, says):
    wrong = tmp_path / "wrong.csv"
    wrong.write_text(text)
    with Catalogue(tmp_path / "catalogue.db") as catalogue:
        before = len(catalogue)
        with pytest.raises(ConfigError, match=says):
            catalogue.import_csv(wrong)
        assert len(catalogue) == before


def test_a_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"code,name\nA1,\xff\xfe\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_csv(tmp_path / "x.csv")


def test_a_damaged_database_is_told_with_the_fix(tmp_path):
    (tmp_path / "catalogue.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StorageError, match="import the CSV file again"):
        Catalogue(tmp_path / "catalogue.db")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["unix", "windows", "old mac"])
@pytest.mark.parametrize("inside", ["\n", "\r\n", "\n\n", "\x0b", "\x0c", "\u2028", "\x85", "; ", ", "])
def test_a_break_inside_quotes_belongs_to_its_field(tmp_path, inside, end):
    if end == "\r" and "\n" in inside:
        pytest.skip("no program writes both")
    file = tmp_path / "c.csv"
    rows = ["code,name,instruction", f'A1,"left{inside}glass","wipe it{inside}turn it"', "A2,other,dry"]
    file.write_bytes((end.join(rows) + end).encode())
    first, second = read_csv(file)
    kept = inside.strip() if inside in ("; ", ", ") else ""
    assert first.name.split() == f"left{kept} glass".split() and "\n" not in first.name
    assert first.instruction == f"wipe it{inside}turn it"
    assert (second.code, second.name, second.instruction) == ("A2", "other", "dry")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=30), max_size=6))
def test_what_a_spreadsheet_writes_is_what_is_read(tmp_path_factory, texts):
    file = tmp_path_factory.mktemp("csv") / "c.csv"
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["code", "name", "instruction"])
        writer.writerows([f"C{number}", "n", text] for number, text in enumerate(texts))
        writer.writerow(["LAST", "n", ""])
    assert [item.instruction for item in read_csv(file)] == [*(text.strip() for text in texts), ""]
