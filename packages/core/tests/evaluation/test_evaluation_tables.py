import gzip

import numpy as np
import pytest

from monkey_coder.errors import OutcomeTableError
from monkey_coder.evaluation.tables import (
    common_models,
    complete_rows,
    concatenate,
    read_table,
    repository_of,
    task_type,
)


def test_reads_scores_costs_and_missing_cells(write, row):
    path = write([row(1, {"a": 1, "b": 0.5}, {"a": 0.1, "b": 0.2}), row(2, {"b": 0.0}, {"b": 0.3})])
    table = read_table(path)
    assert table.models == ("a", "b")
    assert np.array_equal(table.scores, [[1.0, 0.5], [np.nan, 0.0]], equal_nan=True)
    assert np.array_equal(table.costs, [[0.1, 0.2], [np.nan, 0.3]], equal_nan=True)
    assert table.observed.tolist() == [[True, True], [False, True]]


def test_reads_gzip_and_skips_blank_lines(tmp_path, write, row):
    plain = write([row(1, {"a": 1})]).read_bytes()
    packed = tmp_path / "table.jsonl.gz"
    packed.write_bytes(gzip.compress(b"\n" + plain + b"\n  \n"))
    assert read_table(packed).ids == ("t/1",)


def test_a_table_without_costs_says_so(write, row):
    assert read_table(write([row(1, {"a": 1}), row(2, {"a": 0})])).costs is None


def test_a_cell_without_cost_is_no_outcome_in_a_table_with_costs(write, row):
    table = read_table(write([row(1, {"a": 1, "b": 1}, {"a": 0.1}), row(2, {"a": 1, "b": 1}, {"a": 0.1, "b": 0.1})]))
    assert table.observed.tolist() == [[True, False], [True, True]]


BAD = [
    (b"{not json", "not JSON"),
    (b"[1]", "not a JSON object"),
    (b'{"id": "x", "domain": "d", "task": "t", "scores": {}}', "prompt is missing"),
    (b'{"id": 3, "domain": "d", "task": "t", "prompt": "p", "scores": {}}', "id must be a text"),
    (b'{"id": "x", "domain": "d", "task": "t", "prompt": " ", "scores": {}}', "must not be empty"),
    (b'{"id": "x", "domain": "d", "task": "t", "prompt": "p"}', "scores must be an object"),
    (b'{"id": "x", "domain": "d", "task": "t", "prompt": "p", "scores": [1]}', "scores must be an object"),
    (b'{"id": "x", "domain": "d", "task": "t", "prompt": "p", "scores": {"a": 1.5}}', "scores of 'a'"),
    (b'{"id": "x", "domain": "d", "task": "t", "prompt": "p", "scores": {"a": true}}', "scores of 'a'"),
    (b'{"id": "x", "domain": "d", "task": "t", "prompt": "p", "scores": {"a": 1}, "cost_usd": {"a": -1}}', "cost_usd"),
]


@pytest.mark.parametrize(("line", "message"), BAD)
def test_a_bad_line_is_named_by_file_and_number(write, row, line, message):
    path = write([row(1, {"a": 1})])
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(OutcomeTableError, match=r"table\.jsonl: line 2: ") as caught:
        read_table(path)
    assert message in str(caught.value)
    assert "--skip-bad" in str(caught.value)


def test_bad_lines_can_be_left_out_and_are_counted(write, row):
    path = write([row(1, {"a": 1})])
    path.write_bytes(b"".join(line + b"\n" for line, _ in BAD) + path.read_bytes())
    table = read_table(path, skip_bad=True)
    assert (table.ids, table.skipped) == (("t/1",), len(BAD))
    with pytest.raises(OutcomeTableError, match="and 5 more"):
        read_table(path)


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b broken"])
def test_a_file_without_tasks_or_a_damaged_one_is_refused(tmp_path, content):
    path = tmp_path / "table.jsonl.gz"
    path.write_bytes(content and content)
    with pytest.raises(OutcomeTableError, match=r"table\.jsonl\.gz"):
        read_table(path)


def test_a_truncated_file_is_refused(tmp_path, write, row):
    path = tmp_path / "table.jsonl.gz"
    path.write_bytes(gzip.compress(write([row(i, {"a": 1}) for i in range(50)]).read_bytes())[:-30])
    with pytest.raises(OutcomeTableError, match="cannot be read"):
        read_table(path)


def test_common_models_need_95_percent_of_the_rows_of_both_tables(write, row):
    full = {"a": 1, "b": 1, "c": 1}
    first = read_table(write([row(i, full if i else {"a": 1, "b": 1}) for i in range(20)], "1.jsonl"))
    second = read_table(write([row(i, full if i > 1 else {"a": 1, "c": 1}) for i in range(20)], "2.jsonl"))
    assert common_models([first]) == ("a", "b", "c")  # c is on 19 of 20 rows, exactly 95%
    assert common_models([first, second]) == ("a", "c")  # b is on 18 of 20 rows of the second


def test_rows_that_miss_a_model_are_dropped_and_counted(write, row):
    table = read_table(write([row(1, {"a": 1, "b": 1}), row(2, {"a": 1}), row(3, {"a": 0, "b": 0})]))
    kept, dropped = complete_rows(table, {"a", "b"})
    assert (kept.ids, dropped) == (("t/1", "t/3"), 1)


def test_concatenating_keeps_the_union_of_models_and_the_rules_of_each_file(write, row):
    priced = read_table(write([row(1, {"a": 1}, {"a": 0.5})], "1.jsonl"))
    free = read_table(write([row(2, {"b": 1, "a": 0})], "2.jsonl"))
    both = concatenate([priced, free])
    assert both.models == ("a", "b")
    assert np.array_equal(both.scores, [[1, np.nan], [0, 1]], equal_nan=True)
    assert np.array_equal(both.costs, [[0.5, np.nan], [np.nan, np.nan]], equal_nan=True)
    assert both.observed.tolist() == [[True, False], [True, True]]  # the second file has no costs to miss


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("generation", "code_generation"),
        ("code_generation", "code_generation"),
        ("debugging", "debugging"),
        ("bugfix_agentic", "debugging"),
        ("tests", "testing"),
        ("Code-Review", "code_review"),
        ("understanding_input_prediction", "general"),
        ("mcq", "general"),
        ("contested", "general"),
    ],
)
def test_task_names_are_mapped_where_they_say_so(name, kind):
    assert task_type(name) == kind


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ({"id": "x", "repo": "a/b"}, "a/b"),
        ({"id": "x", "repository": " a/b "}, "a/b"),
        ({"id": "x", "meta": {"repo": "a/b"}}, "a/b"),
        ({"id": "swebench_verified/django__django-10097"}, "django__django"),
        ({"id": "scikit-learn__scikit-learn-12"}, "scikit-learn__scikit-learn"),
        ({"id": "lcb_gen/1873_A", "meta": None}, None),
    ],
)
def test_repositories_are_found_where_a_table_names_them(line, name):
    assert repository_of(line) == name
