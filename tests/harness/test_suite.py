"""A suite file is checked before any work starts: a mistake is one line that names the file, the case and the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsebench.errors import UsageError
from sparsebench.harness.cells import expand
from sparsebench.harness.suite import Suite, load_suite, parse_suite, suite_names

HEAD = 'schema = 1\n[suite]\nname = "mine"\n'
KERNEL = '[[kernel]]\nname = "one"\nop = "linear"\nout_features = 8\nin_features = 6\n'
CONV = '[[kernel]]\nname = "one"\nop = "conv2d"\nout_features = 8\nin_features = 6\n'
MODEL = '[[inference]]\nname = "one"\nmodel = "mlp"\ndataset = "digits"\n'
TRAINING = '[[training]]\nname = "one"\nmodel = "mlp"\ndataset = "digits"\n'
IN_KERNEL = "mine.toml [[kernel]] 'one': "


def parsed(text: str) -> Suite:
    return parse_suite(text, "mine.toml")


def complaint(text: str) -> str:
    """What is said about a suite that cannot be: by the parser, or else when its cells are made."""
    with pytest.raises(UsageError) as error:
        expand(parsed(text))
    message = str(error.value)
    assert "\n" not in message
    assert error.value.exit_code == 2
    return message


@pytest.mark.parametrize("name", suite_names())
def test_every_built_in_suite_is_right(name: str) -> None:
    suite = load_suite(name)
    cells = expand(suite)
    assert suite.name == name
    assert suite.summary
    assert len({cell.key for cell in cells}) == len(cells) >= len(suite.cases)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema = ", "mine.toml: not valid TOML"),
        ("[suite]", "mine.toml: schema is missing; this sparsebench reads schema = 1"),
        ("schema = 2\n[new-thing]", "mine.toml: schema = 2; this sparsebench reads schema = 1"),
        ("schema = 1", "mine.toml: there is no [suite] table; add one"),
        ('schema = 1\nsuite = "x"', "mine.toml: there is no [suite] table; add one"),
        (HEAD, "mine.toml: no case; add a table such as [[kernel]]"),
        (HEAD + "[[kernels]]", "mine.toml: 'kernels' is not a key; did you mean 'kernel'?"),
        (HEAD + '[kernel]\nname = "one"', "mine.toml: write cases as [[kernel]], with two brackets"),
        (HEAD + "kernel = 3", "mine.toml [suite]: 'kernel' is not a key"),
        (HEAD + "bloks = 3\n" + KERNEL, "mine.toml [suite]: 'bloks' is not a key; did you mean 'blocks'?"),
        (HEAD + "blocks = 0\n" + KERNEL, "mine.toml [suite]: blocks = 0; write at least 1"),
        (HEAD + "blocks = true\n" + KERNEL, "mine.toml [suite]: blocks = True; write a whole number"),
        (HEAD + 'backends = "cython"\n' + KERNEL, "mine.toml [suite]: backends = 'cython'; write a list"),
        (HEAD + "baseline = 1\n" + KERNEL, "mine.toml [suite]: baseline = 1; write text"),
        (HEAD + "details = 1\n" + KERNEL, "mine.toml [suite]: details = 1; write true or false"),
        (HEAD + "default = true\n" + KERNEL, "mine.toml [suite]: default = True; write text"),
        (HEAD + "margin = 3\n" + KERNEL, "mine.toml [suite]: margin = 3; write a share such as 0.03"),
        (HEAD + 'threads = ["one"]\n' + KERNEL, "mine.toml [suite]: threads = ['one']; write a list"),
        (HEAD + "threads = [0]\n" + KERNEL, IN_KERNEL + "threads = 0; write at least 1"),
        (HEAD + KERNEL + KERNEL, "mine.toml: two cases are named 'one'; rename one"),
        (HEAD + KERNEL + MODEL, "mine.toml: two cases are named 'one'; rename one"),
        (HEAD + '[[kernel]]\nop = "linear"', "mine.toml [[kernel]] '(without a name)': name is missing"),
        (HEAD + '[[kernel]]\nname = "one"\nop = "linear"', IN_KERNEL + "out_features is missing"),
        (HEAD + '[[training]]\nname = "one"\nmodel = "mlp"', "mine.toml [[training]] 'one': dataset is missing"),
        (HEAD + MODEL + "epochs = 3", "mine.toml [[inference]] 'one': 'epochs' is not a key"),
        (HEAD + MODEL + 'exclude = "fc1"', "mine.toml [[inference]] 'one': exclude = 'fc1'; write a list"),
        (HEAD + TRAINING + "epochs = 0", "mine.toml [[training]] 'one': epochs = 0; write at least 1"),
        (HEAD + TRAINING + 'lr = "fast"', "mine.toml [[training]] 'one': lr = 'fast'; write a number"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_its_place(text: str, message: str) -> None:
    assert complaint(text).startswith(message)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sparcity = 0.9", "'sparcity' is not a key; did you mean 'sparsity'"),
        ("sparsity = 1.0", "sparsity = 1.0; write a share of pruned weights in [0, 1)"),
        ("sparsity = -0.1", "sparsity = -0.1; write a share of pruned weights in [0, 1)"),
        ("sparsity = nan", "sparsity = nan; write a share of pruned weights in [0, 1)"),
        ('sparsity = [0.9, "high"]', "sparsity = 'high'; write a number"),
        ("sparsity = true", "sparsity = True; write a number"),
        ("sparsity = []", "sparsity = [] is empty"),
        ("sparsity = [0.9, 0.9]", "sparsity = [0.9, 0.9] is a list with a value twice"),
        ("sparsity = [0, 0.0]", "sparsity = [0, 0.0] is a list with a value twice"),
        ("batch = 0", "batch = 0; write at least 1"),
        ("batch = 2.5", "batch = 2.5; write a whole number"),
        ("bias = 1", "bias = 1; write true or false"),
        ("rounds = 0", "rounds = 0; write at least 1"),
        ("blocks = [1, 2]", "blocks = [1, 2]; write a whole number"),
        ("tags = 5", "tags = 5; write a list"),
        ("tags = [5]", "tags = [5]; write a list"),
        ("summary = 5", "summary = 5; write text"),
        ('group = ["a"]', "group = ['a']; write text"),
        ("kernel_size = true", "kernel_size = True; write a whole number or two, as in kernel_size = [3, 3]"),
        ("kernel_size = [3]", "kernel_size = [3]; write a whole number or two"),
        ("kernel_size = [3, true]", "kernel_size = [3, True]; write a whole number or two"),
        ("kernel_size = [[1, 1], [1, 1]]", "kernel_size = [[1, 1], [1, 1]] is a list with a value twice"),
        ('pass = "forwards"', "pass = 'forwards' is not known; did you mean 'forward'"),
        ('pattern = "unifrom"', "pattern = 'unifrom' is not known; use uniform, row-skewed, block:8"),
        ('dtype = "float16"', "dtype = 'float16' is not known; did you mean"),
        ("padding = -1", "linear 6->8: padding = (-1, -1); use two whole numbers of at least 0"),
        ("kernel_size = 3", "linear 6->8: kernel_size = (3, 3) means nothing for linear; leave kernel_size out"),
    ],
)
def test_a_mistake_in_a_case_names_case_and_key(line: str, message: str) -> None:
    assert complaint(HEAD + KERNEL + line).startswith(IN_KERNEL + message)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("kernel_size = 5\nheight = 3\nwidth = 3", "does not fit an input of 3x3"),
        ("groups = 4", "in_features = 6 does not divide into groups = 4"),
        ('pass = ["forward", "sideways"]', "pass = 'sideways' is not known"),
    ],
)
def test_an_impossible_layer_is_found_before_any_work(lines: str, message: str) -> None:
    found = complaint(HEAD + CONV + lines)
    assert found.startswith(IN_KERNEL)
    assert message in found


@pytest.mark.parametrize("name", ["3", "true", '""'])
def test_a_name_is_text(name: str) -> None:
    assert "name" in complaint(HEAD + KERNEL.replace('"one"', name))


def test_a_misspelt_operation_names_the_nearest() -> None:
    assert "op = 'liner' is not known; did you mean 'linear'?" in complaint(HEAD + KERNEL.replace("linear", "liner"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("suite-cpuu", "no suite is named 'suite-cpuu'; did you mean 'suite-cpu'"),
        ("no/such.toml", "suite no/such.toml: no such file; built-in suites: suite-accuracy, suite-cpu"),
    ],
)
def test_a_suite_that_is_not_there(name: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        load_suite(name)
    assert str(error.value).startswith(message)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "odd.toml").write_bytes(b"schema = 1 # \xff\xfe")
    with pytest.raises(UsageError, match=r"odd\.toml: not UTF-8 text"):
        load_suite(str(tmp_path / "odd.toml"))


def test_what_is_left_out_has_its_default() -> None:
    suite = parsed("schema = 1\n[suite]\n" + KERNEL + MODEL.replace("one", "two"))
    kernel, model = suite.cases
    assert (suite.name, suite.baseline) == ("mine", "torch-dense")
    assert (kernel.blocks, kernel.rounds, kernel.margin, kernel.tags) == (5, None, 0.03, ())
    assert dict(kernel.axes) == {"sparsity": (0.9,), "pass": ("both",), "threads": (1,)}
    assert model.margin == 0.05
    assert (suite.default, suite.details, kernel.group, model.group) == ("", False, "", "")
    assert {k: model.parameters[k] for k in ("batch", "method", "allocator", "seed")} == {
        "batch": 32, "method": "static", "allocator": "uniform", "seed": 0,
    }  # fmt: skip


def test_a_case_overrides_what_the_suite_says() -> None:
    head = HEAD + 'blocks = 2\nrounds = 7\nmargin = 0.1\nthreads = 2\nbackends = ["cython"]\n'
    own = 'blocks = 3\nrounds = 4\nmargin = 0.2\nthreads = [1]\nbackends = []\ntags = ["fast"]\n'
    plain, special = parsed(head + KERNEL + KERNEL.replace("one", "two") + own).cases
    assert (plain.blocks, plain.rounds, plain.margin, plain.backends) == (2, 7, 0.1, ("cython",))
    assert (special.blocks, special.rounds, special.margin, special.backends) == (3, 4, 0.2, ())
    assert plain.axes["threads"] == (2,)
    assert special.axes["threads"] == (1,)
    assert special.tags == ("fast",)


def test_a_list_is_an_axis_and_a_pair_is_a_value() -> None:
    lines = "height = 9\nwidth = 9\nkernel_size = [3, 5]\nstride = 2\nbatch = [1, 4]\npadding = [[0, 0], [1, 2]]\n"
    (case,) = parsed(HEAD + CONV + lines).cases
    assert case.parameters["kernel_size"] == (3, 5)
    assert case.parameters["stride"] == (2, 2)
    assert case.axes["batch"] == (1, 4)
    assert case.axes["padding"] == ((0, 0), (1, 2))


def test_cells_come_in_the_order_of_the_file_with_the_last_axis_fastest() -> None:
    lines = 'sparsity = [0.8, 0.9]\npass = ["forward", "both"]\nbatch = [4, 2]\n'
    suite = parsed(HEAD + KERNEL + lines + KERNEL.replace("one", "two"))
    assert [*suite.cases[0].axes] == ["sparsity", "pass", "threads", "batch"]
    assert [[c.case.name, *c.axes.values()] for c in expand(suite)] == [
        ["one", 0.8, "forward", 1, 4],
        ["one", 0.8, "forward", 1, 2],
        ["one", 0.8, "both", 1, 4],
        ["one", 0.8, "both", 1, 2],
        ["one", 0.9, "forward", 1, 4],
        ["one", 0.9, "forward", 1, 2],
        ["one", 0.9, "both", 1, 4],
        ["one", 0.9, "both", 1, 2],
        ["two", 0.9, "both", 1],
    ]


def test_the_hash_is_that_of_the_text() -> None:
    one, other = parsed(HEAD + KERNEL), parsed(HEAD + KERNEL + "# a comment\n")
    assert one.sha256 == parsed(HEAD + KERNEL).sha256 != other.sha256
