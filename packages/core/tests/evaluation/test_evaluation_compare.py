import gzip
import json
import math
from collections import defaultdict
from hashlib import sha256

import numpy as np
import orjson
import pytest

from monkey_coder.errors import OutcomeTableError, SettingsError
from monkey_coder.evaluation.analysis import analyse
from monkey_coder.evaluation.compare import play_routers
from monkey_coder.evaluation.decisions import DecisionsError, read_decisions, write_decisions
from monkey_coder.evaluation.preparation import Plan, prepare, shuffle_outcomes, view
from monkey_coder.evaluation.protocol import COST_WEIGHTS, RouterContext
from monkey_coder.evaluation.registry import builtin_routers
from monkey_coder.evaluation.report import to_document
from monkey_coder.evaluation.tables import read_table

ALL = ("random", "cheapest", "best_single", "gary8d", "ladder", "knn", "oracle")


@pytest.fixture
def compare(embedder):
    """Prepare, play and analyse; returns all three."""

    def run(plan, names=ALL, resamples=300):
        prepared = prepare(plan)
        played = play_routers(prepared, names, builtin_routers(), RouterContext(lambda: embedder), lambda *_: None)
        return prepared, played, analyse(prepared, played, resamples)

    return run


def utility(result, weight, cost_ref):
    point = next(each for each in result.points if each.cost_weight == weight)
    return point.success.value - weight * point.cost.value / cost_ref


def test_the_order_of_the_routers_is_what_their_knowledge_says(compare, write, random_rows):
    path = write(random_rows(600))
    for attempts in (1, 2):
        _, _, comparison = compare(Plan(train=(path,), holdout=0.4, attempts=attempts))
        routers, ref = comparison.routers, comparison.cost_ref
        for weight in (0.0, 0.3, 1.0):
            value = {name: utility(result, weight, ref) for name, result in routers.items()}
            assert max(value, key=value.get) == "oracle"
            assert value["best_single"] < value["knn"] + 0.02
            assert value["best_single"] < value["ladder"] + 0.02
            assert value["random"] < value["best_single"] or attempts == 2
    assert routers["knn"].aiq.value > routers["random"].aiq.value
    paired = {(each.router, each.against): each for each in comparison.paired}
    assert len(paired) == len(ALL) * (len(ALL) - 1)
    assert paired["oracle", "random"].aiq.better
    forth, back = paired["knn", "ladder"].aiq, paired["ladder", "knn"].aiq
    assert (forth.value, forth.low) == (pytest.approx(-back.value), pytest.approx(-back.high))


def test_every_figure_can_be_had_from_tables_and_decisions_alone(compare, write, random_rows, tmp_path):
    """Scores the decisions file again with nothing but the standard library and the rules."""
    rows = random_rows(120)
    plan = Plan(train=(write(rows),), holdout=0.5, attempts=2, noise=0.2, seeds=2)
    prepared, played, comparison = compare(plan)
    write_decisions(tmp_path / "d.jsonl", prepared, played)
    table = {each["id"]: each for each in rows}
    held_out = {
        each["id"]
        for each in rows
        if int.from_bytes(sha256(each["prompt"].strip().encode()).digest(), "big") % 1000 < 500
    }
    sums = defaultdict(lambda: [0, 0.0, 0.0, 0])
    for text in (tmp_path / "d.jsonl").read_text().splitlines():
        line = json.loads(text)
        assert set(line) == {"id", "router", "cost_weight", "seed", "models"}
        assert line["id"] in held_out
        task = table[line["id"]]
        for place, model in enumerate(line["models"]):
            draw = sha256(f"{line['seed']}:{line['id']}:{model}".encode()).digest()[:8]
            accepted = (task["scores"][model] >= 0.5) ^ (int.from_bytes(draw, "big") / 2**64 < 0.2)
            assert not accepted or place == len(line["models"]) - 1
        total = sums[line["router"], line["cost_weight"]]
        total[0] += 1
        total[1] += task["scores"][line["models"][-1]]
        total[2] += sum(task["cost_usd"][model] for model in line["models"])
        total[3] += len(line["models"])
    document = to_document(comparison)
    assert document["tasks"] == len(held_out)
    for name, router in document["routers"].items():
        assert [point["cost_weight"] for point in router["points"]] == list(COST_WEIGHTS)
        for point in router["points"]:
            count, success, cost, attempts = sums[name, point["cost_weight"]]
            assert count == 2 * len(held_out)
            assert point["success"] == pytest.approx(success / count)
            assert point["cost_usd"] == pytest.approx(cost / count)
            assert point["attempts"] == pytest.approx(attempts / count)
            assert point["success_low"] <= point["success"] <= point["success_high"]


@pytest.mark.parametrize("name", ["d.jsonl", "d.jsonl.gz"])
def test_rescoring_gives_the_very_same_document(compare, write, random_rows, tmp_path, name):
    plan = Plan(train=(write(random_rows(90)),), folds=3, attempts=3, noise=0.1, seeds=2)
    prepared, played, comparison = compare(plan)
    write_decisions(tmp_path / name, prepared, played)
    again = prepare(plan)
    assert to_document(analyse(again, read_decisions(tmp_path / name, again), 300)) == to_document(comparison)


def test_decisions_that_do_not_fit_are_refused(compare, write, random_rows, tmp_path):
    plan = Plan(train=(write(random_rows(60)),), holdout=0.5, attempts=2)
    prepared, played, _ = compare(plan, names=("cheapest",))
    path = tmp_path / "d.jsonl"
    write_decisions(path, prepared, played)
    lines = path.read_bytes().splitlines(keepends=True)
    first = orjson.loads(lines[0])

    def refused(changed, message):
        path.write_bytes(changed)
        with pytest.raises(DecisionsError, match=message):
            read_decisions(path, prepared)

    refused(b"", "holds no decision")
    refused(b"".join(lines[1:]), "lacks 1 of")
    refused(b"".join([*lines, lines[0]]), f"line {len(lines) + 1}: .*already decided")
    refused(b"{}", "line 1: lacks the key 'router'")
    refused(b"[]", "line 1")
    for key, value, message in [
        ("id", "nobody", "no test task 'nobody'"),
        ("models", ["gpt-9"], "no model 'gpt-9'"),
        ("models", [], "at least one attempt"),
        ("cost_weight", 0.5, "no cost weight 0.5"),
        ("seed", 7, "no seed 7"),
    ]:
        refused(orjson.dumps(first | {key: value}), message)


def test_cross_validation_tests_every_row_once_by_what_never_saw_it(write, random_rows):
    rows = [*random_rows(60), *({**each, "id": f"copy/{each['id']}"} for each in random_rows(20))]
    prepared = prepare(Plan(train=(write(rows),), folds=4))
    tested = np.concatenate([part.test_rows for part in prepared.parts])
    assert sorted(tested) == list(range(80))
    for part in prepared.parts:
        prompts = {prepared.test.prompts[i] for i in part.test_rows}
        assert prompts.isdisjoint(part.train.prompts)
        assert len(part.train) == 80 - len(part.test_rows)


def test_priors_and_prices_come_from_the_training_rows_alone(write, random_rows):
    prepared = prepare(Plan(train=(write(random_rows(100)),), holdout=0.4))
    train = view(prepared.parts[0], prepared)
    assert train.models.prior == pytest.approx(prepared.parts[0].train.scores.mean(axis=0))
    assert train.models.prior != pytest.approx(prepared.test.scores.mean(axis=0))
    assert train.models.cost_ref == pytest.approx(prepared.parts[0].train.costs.mean(axis=0).max())


def test_shared_prompts_are_taken_out_of_the_training_rows(write, random_rows):
    train, test = random_rows(50), random_rows(40, seed=1)
    test[0] = {**train[0], "id": "same prompt"}
    prepared = prepare(Plan(train=(write(train, "a.jsonl"),), test=write(test, "b.jsonl")))
    assert (len(prepared.parts[0].train), len(prepared.test)) == (49, 40)
    assert any("prompts are in the test table" in note for note in prepared.notes)


def test_several_training_tables_and_rows_that_miss_a_model(write, random_rows):
    first, second, test = random_rows(40), random_rows(40, seed=1), random_rows(40, seed=2)
    del first[0]["scores"]["dull"]
    del test[0]["scores"]["cheap"]
    first[1]["scores"]["only here"] = 1.0
    paths = tuple(write(rows, name) for rows, name in ((first, "a.jsonl"), (second, "b.jsonl")))
    prepared = prepare(Plan(train=paths, test=write(test, "c.jsonl")))
    assert set(prepared.test.models) == {"cheap", "dear", "dull"}
    assert (len(prepared.parts[0].train), len(prepared.test), prepared.dropped) == (79, 39, 2)
    assert any("only here" in note for note in prepared.notes)


def test_a_new_model_takes_part_with_its_declared_prior(compare, write, random_rows, row):
    train = random_rows(60)
    for each in train:
        del each["scores"]["dear"]
    paths = {"train": (write(train, "a.jsonl"),), "test": write(random_rows(60, seed=1), "b.jsonl")}
    assert prepare(Plan(**paths)).test.models == ("cheap", "dull")
    prepared, played, _ = compare(Plan(**paths, priors={"dear": 0.85, "dull": 0.9}))
    models = view(prepared.parts[0], prepared).models
    dear, dull = prepared.test.models.index("dear"), prepared.test.models.index("dull")
    assert (models.prior[dear], models.evidence[dear]) == (0.85, 0)
    assert models.prior[dull] < 0.5
    assert any("prior of dull was not used" in note for note in prepared.notes)
    assert (played["best_single"].tried[0, 0, :, 0] == dear).all()
    with pytest.raises(SettingsError, match="no such model"):
        prepare(Plan(**paths, priors={"gpt-9": 0.5}))


def test_without_costs_success_and_attempts_are_compared_at_weight_0(compare, write, random_rows):
    _, _, comparison = compare(Plan(train=(write(random_rows(200, costs=False)),), holdout=0.4, attempts=2))
    document = to_document(comparison)
    assert document["cost_ref"] is None
    assert document["singles"]["dear"]["cost_usd"] is None
    for router in document["routers"].values():
        assert [point["cost_weight"] for point in router["points"]] == [0.0]
        assert router["aiq"] is None
        assert router["points"][0]["cost_usd"] is None
    entry = next(each for each in document["paired"] if (each["router"], each["against"]) == ("knn", "random"))
    assert entry["aiq_difference"] is None
    assert entry["low"] <= entry["success_difference"] <= entry["high"]
    assert entry["attempts_difference"] < 0  # it needs fewer attempts than chance


def test_the_document_has_the_fixed_keys_and_no_others(compare, write, random_rows):
    train, test = write(random_rows(60), "a.jsonl"), write(random_rows(60, seed=1), "b.jsonl")
    _, _, comparison = compare(Plan(train=(train,), test=test))
    document = to_document(comparison)
    top = {"train", "test", "tasks", "dropped", "attempts", "verifier_noise", "seeds", "cost_ref", "singles"}
    assert set(document) == top | {"routers", "paired"}
    assert (document["train"], document["test"]) == ([str(train)], str(test))
    assert set(document["routers"]["knn"]) == {"points", "aiq", "aiq_low", "aiq_high"}
    spans = {f"{name}_{end}" for name in ("success", "cost") for end in ("low", "high")}
    assert set(document["routers"]["knn"]["points"][0]) == spans | {"cost_weight", "success", "cost_usd", "attempts"}
    assert set(document["paired"][0]) == {"router", "against", "aiq_difference", "low", "high"}
    assert all(math.isfinite(single["cost_usd"]) for single in document["singles"].values())


def test_two_models_are_also_compared_by_the_order_of_the_prompts(compare, write, row):
    rng = np.random.default_rng(0)
    rows = []
    for i in range(400):
        red = i % 2 == 0
        scores = {"weak": float(red), "strong": float(rng.random() < 0.9)}
        rows.append(row(i, scores, prompt=f"{'red' if red else 'blue'} {i}"))
    _, _, comparison = compare(Plan(train=(write(rows),), holdout=0.4))
    pairs = {name: result.pair for name, result in comparison.routers.items()}
    assert (pairs["knn"].strong, pairs["knn"].weak) == ("strong", "weak")
    assert pairs["knn"].apgr > 0.7 > pairs["random"].apgr
    assert pairs["knn"].cpt_80 < pairs["random"].cpt_80
    assert pairs["cheapest"] is None
    assert set(to_document(comparison)["routers"]["knn"]) >= {"apgr", "cpt_50", "cpt_80"}


def test_placebo_keeps_each_rows_pairs_and_takes_all_skill_away(compare, write, random_rows):
    path = write(random_rows(900))
    real, fake = prepare(Plan(train=(path,), holdout=0.5)), prepare(Plan(train=(path,), holdout=0.5, placebo=True))
    pairs = [sorted(zip(*each, strict=True)) for each in zip(real.test.scores, real.test.costs, strict=True)]
    assert pairs == [sorted(zip(*each, strict=True)) for each in zip(fake.test.scores, fake.test.costs, strict=True)]
    assert np.array_equal(real.parts[0].train.scores, fake.parts[0].train.scores)
    assert abs(fake.test.scores.mean(axis=0) - fake.test.scores.mean()).max() < 0.06

    _, _, comparison = compare(Plan(train=(path,), holdout=0.5, placebo=True, seeds=5), tuple(builtin_routers()))
    assert to_document(comparison)["placebo"] is True
    for each in comparison.paired:
        if each.against == "random":
            assert each.attempts.value == 0
            assert each.success.low <= 0 <= each.success.high, each


def test_the_placebo_can_be_repeated_by_anyone(write, random_rows):
    table = read_table(write(random_rows(5)))
    shuffled = shuffle_outcomes(table)

    def draw(task, model):
        return sha256(f"placebo:{task}:{model}".encode()).digest()[:8]

    for i, task in enumerate(table.ids):
        order = sorted(range(3), key=lambda m, task=task: draw(task, table.models[m]))
        assert shuffled.scores[i].tolist() == table.scores[i, order].tolist()
        assert shuffled.costs[i].tolist() == table.costs[i, order].tolist()


def test_repositories_are_resampled_together_where_five_are_named(compare, write, random_rows):
    rows = [{**each, "repo": f"r{i % 6}"} for i, each in enumerate(random_rows(120))]
    assert compare(Plan(train=(write(rows),), folds=2))[2].units == 6


def test_without_noise_only_seeded_routers_differ_between_seeds(compare, write, random_rows):
    _, played, _ = compare(Plan(train=(write(random_rows(80)),), holdout=0.5, attempts=2, seeds=2))
    assert (played["random"].tried[:, 0] != played["random"].tried[:, 1]).any()
    assert (played["knn"].tried[:, 0] == played["knn"].tried[:, 1]).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": ()}, "at least one table"),
        ({}, "in one way"),
        ({"folds": 5, "holdout": 0.3}, "in one way"),
        ({"train": ("a", "b"), "folds": 5}, "exactly one"),
        ({"folds": 1}, "at least 2"),
        ({"holdout": 1.0}, "between 0 and 1"),
        ({"folds": 2, "attempts": 0}, "at least 1"),
        ({"folds": 2, "noise": 1.5}, "probability"),
        ({"folds": 2, "priors": {"a": 2.0}}, "prior of 'a'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(SettingsError, match=message):
        Plan(**{"train": ("a",)} | settings)


def test_tables_that_leave_nothing_are_refused(write, random_rows, row):
    path = write(random_rows(3))
    with pytest.raises(OutcomeTableError, match="both are needed"):
        prepare(Plan(train=(path,), test=path))
    other = write([row(1, {"x": 1})], "other.jsonl")
    with pytest.raises(OutcomeTableError, match="no model in common"):
        prepare(Plan(train=(path,), test=other))


def test_packed_decisions_are_smaller(compare, write, random_rows, tmp_path):
    prepared, played, _ = compare(Plan(train=(write(random_rows(60)),), holdout=0.5), names=("cheapest",))
    write_decisions(tmp_path / "d.jsonl", prepared, played)
    write_decisions(tmp_path / "d.jsonl.gz", prepared, played)
    assert gzip.decompress((tmp_path / "d.jsonl.gz").read_bytes()) == (tmp_path / "d.jsonl").read_bytes()
