"""Lines fit a terminal, and nothing that is only of use whole is broken."""

from sparsebench.wrapping import WIDTH, beside, wrap

TEXT = "a sparse product as dense ones " * 12


def test_lines_fit_and_hold_every_word():
    for lines in (wrap(TEXT), wrap(TEXT, width=40, indent=0, hang=8), beside("  label   ", TEXT, hang=10)):
        assert " ".join(" ".join(lines).removeprefix("  label").split()) == " ".join(TEXT.split())
        assert len(lines) > 2
    assert max(map(len, wrap(TEXT))) <= WIDTH
    assert max(map(len, wrap(TEXT, width=40))) <= 40


def test_the_first_line_is_indented_or_behind_its_label_and_the_others_hang():
    first, *others = wrap(TEXT, indent=2, hang=6)
    assert first.startswith("  a ")
    assert all(line.startswith(" " * 6) and line[6] != " " for line in others)
    first, *others = beside("  threads:   ", TEXT, hang=13)
    assert first.startswith("  threads:   a sparse")
    assert all(line.startswith(" " * 13) and line[13] != " " for line in others)


def test_what_is_only_of_use_whole_stays_whole():
    path = "https://example.org/" + "x" * 120
    assert wrap(path, indent=0) == [path]
    assert wrap("--keep-models " * 20, width=50)[0].endswith("--keep-models")
    held = wrap("a\N{NO-BREAK SPACE}b " * 60, indent=0, hang=0)
    assert all(line.startswith("a") and line.endswith("b") for line in held)


def test_a_text_without_words_is_one_line():
    assert wrap(" \n ") == [""]
    assert beside("  label   ", "", hang=4) == ["  label"]
