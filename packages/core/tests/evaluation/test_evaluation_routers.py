from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monkey_coder.evaluation.episodes import RouterFaultError, check_attempts, play, score
from monkey_coder.evaluation.gary8d import Gary8D
from monkey_coder.evaluation.knn import Knn, nearest
from monkey_coder.evaluation.ladder import Ladder, Rungs, best_order
from monkey_coder.evaluation.protocol import STOP, EpisodeState, Tasks
from monkey_coder.evaluation.routers import BestSingle, Cheapest, Oracle, Random

NAN = float("nan")


def tasks_of(*prompts):
    return Tasks(prompts, ("generation",) * len(prompts), ("coding",) * len(prompts), np.zeros(len(prompts), np.int64))


def ask(router, train, prompts, tried=(), weight=0.0, seed=0):
    """What a router answers for tasks that are all open, after the same attempts."""
    tasks = tasks_of(*prompts)
    before = np.tile(np.array(tried, dtype=np.intp), (len(prompts), 1))
    state = EpisodeState(tasks, train.models, np.arange(len(prompts)), before, np.zeros(before.shape), 9, seed)
    return router.choose(state, weight).tolist()


# Three models: m0 cheap and weak, m1 middling, m2 strong and dear.
SCORES = [[1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 0]]
COSTS = [[0.1, 0.4, 1.0]] * 4


def test_training_means_and_cost_ref(training):
    models = training(SCORES, COSTS).models
    assert models.prior.tolist() == [0.25, 0.5, 0.75]
    assert models.price == pytest.approx([0.1, 0.4, 1.0])
    assert models.cost_ref == 1.0
    assert models.utility(0.5) == pytest.approx([0.2, 0.3, 0.25])


def test_a_new_model_has_its_declared_prior_or_the_mean_of_all(training):
    scores = [[1, NAN, 0], [0, NAN, 1]]
    costs = [[0.2, NAN, 0.4], [0.2, NAN, 0.4]]
    assert training(scores, costs).models.prior.tolist() == [0.5, 0.5, 0.5]
    declared = training(scores, costs, priors={"m1": 0.9, "m0": 0.1}).models
    assert declared.prior.tolist() == [0.5, 0.9, 0.5]  # m0 has training rows, which say more
    assert declared.evidence.tolist() == [2, 0, 2]
    assert declared.price == pytest.approx([0.2, 0.3, 0.4])


def test_cheapest_and_best_single_follow_their_tables(training):
    train = training(SCORES, COSTS)
    assert [ask(Cheapest(), train, ["p"], tried) for tried in ((), (0,), (0, 1), (0, 1, 2))] == [[0], [1], [2], [STOP]]
    assert [ask(BestSingle(), train, ["p"], tried) for tried in ((), (2,))] == [[2], [1]]
    assert [ask(BestSingle(), train, ["p"], tried, weight=1.0) for tried in ((), (0,))] == [[0], [1]]


def test_random_is_uniform_repeatable_and_never_repeats_a_model(training):
    train = training(SCORES, COSTS)
    prompts = [f"prompt {i}" for i in range(3000)]
    first = ask(Random(), train, prompts)
    assert first == ask(Random(), train, prompts, weight=1.0)
    assert first != ask(Random(), train, prompts, seed=1)
    assert np.bincount(first) / 3000 == pytest.approx(1 / 3, abs=0.03)
    second = ask(Random(), train, prompts, tried=(0,))
    assert 0 not in second
    assert np.bincount(second)[1] / 3000 == pytest.approx(0.5, abs=0.03)


def test_oracle_takes_the_cheapest_sufficient_model_and_stops(training):
    scores, costs = np.array(SCORES, float), np.array(COSTS)
    train = training(SCORES, COSTS)
    assert ask(Oracle(scores, costs), train, "abcd") == [0, 1, 2, 0]
    assert ask(Oracle(scores, costs), train, "abcd", tried=(1,)) == [STOP] * 4


def brute_force(train, per_usd):
    """The best order by enumeration: expected utility straight from the rules, attempt by attempt."""
    rows, models = train.scores.shape
    best = (-np.inf, ())
    for length in range(1, min(train.attempts, models) + 1):
        for order in permutations(range(models), length):
            total = 0.0
            for r in range(rows):
                reach = 1.0
                for place, m in enumerate(order):
                    true, last = train.scores[r, m], place == length - 1
                    accept = 1 - train.noise if true >= 0.5 else train.noise
                    kept = 1.0 if last else accept
                    total += reach * (kept * true - per_usd * train.costs[r, m])
                    reach *= 1 - accept
            best = max(best, (total / rows, order))
    return best


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000), st.integers(1, 4), st.sampled_from([0.0, 0.1, 0.3]), st.sampled_from([0.0, 0.05, 0.5, 3.0])
)
def test_the_ladder_is_the_best_order_there_is(training, seed, attempts, noise, per_usd):
    rng = np.random.default_rng(seed)
    scores = rng.choice([0.0, 0.3, 0.7, 1.0], size=(6, 4))
    train = training(scores, rng.uniform(0.01, 1.0, size=(6, 4)), noise=noise, attempts=attempts)
    expected, _ = brute_force(train, per_usd)
    assert best_order(Rungs.of(train), per_usd, attempts, width=10_000)[1] == pytest.approx(expected)
    assert best_order(Rungs.of(train), per_usd, attempts)[1] <= expected + 1e-9


def test_the_ladder_stops_where_a_further_rung_costs_more_than_it_brings(training):
    ladder = Ladder()
    train = training(SCORES, COSTS, attempts=3, weights=(0.0, 1.0))
    ladder.fit(train)
    assert ask(ladder, train, ["p"]) == [2]  # at no price for money, m2 alone does all that can be done
    assert ask(ladder, train, ["p"], tried=(2,)) == [STOP]
    assert ask(ladder, train, ["p"], weight=1.0) == [0]
    assert ask(ladder, train, ["p"], tried=(0,), weight=1.0) == [STOP]  # 0.25 more for 0.4 * 3/4 USD


def test_a_ladder_may_hold_a_model_without_training_rows(training):
    train = training([[0, NAN], [0, NAN]], attempts=2, priors={"m1": 0.9}, weights=(0.0,))
    ladder = Ladder()
    ladder.fit(train)
    assert ask(ladder, train, ["p"]) == [1]


def test_nearest_are_those_of_highest_similarity():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(700, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = nearest(vectors, vectors[:600], 4)
    for row, near in enumerate(found):
        assert set(near) == set(np.argsort(-(vectors @ vectors[row]))[:4])
    assert nearest(vectors[:3], vectors[:2], 4).tolist() == [[0, 1, 2]] * 2


def colours(training, **more):
    """m0 does what is red, m1 what is blue; m2 does what m0 does not; 60 tasks of each colour, all of them near."""
    prompts = [f"red {i}" for i in range(60)] + [f"blue {i}" for i in range(60)]
    scores = [[1, 0, 0]] * 45 + [[0, 0, 1]] * 15 + [[0, 1, 0]] * 60
    return training(scores, [[0.1, 0.1, 0.1]] * 120, prompts=prompts, **more)


def test_knn_reads_the_prompt_and_what_failed(training, embedder):
    train = colours(training, attempts=3)
    knn = Knn(embedder)
    knn.fit(train)
    assert ask(knn, train, ["red", "blue", "a blue one"]) == [0, 1, 1]
    assert ask(knn, train, ["red"], tried=(0,)) == [2]  # of the red ones that m0 fails, m2 does all
    preference = knn.preference(tasks_of("red", "blue"), 0, 1)
    assert preference[0] > preference[1]


def test_knn_stops_where_nothing_is_worth_its_price(training, embedder):
    train = training([[0, 0]] * 70, [[0.1, 0.2]] * 70, prompts=["red"] * 70, attempts=2)
    knn = Knn(embedder)
    knn.fit(train)
    assert ask(knn, train, ["red"], weight=1.0) == [0]  # a first attempt there must be
    assert ask(knn, train, ["red"], tried=(0,), weight=1.0) == [STOP]


def test_knn_keeps_a_rejected_answer_that_is_probably_right(training, embedder):
    train = training([[1, 0]] * 70, [[0.1, 0.1]] * 70, prompts=["red"] * 70, attempts=2, noise=0.2)
    knn = Knn(embedder)
    knn.fit(train)
    assert ask(knn, train, ["red"], tried=(0,)) == [STOP]


def test_knn_falls_back_on_the_prior_of_a_new_model(training, embedder):
    train = training([[0, NAN]] * 70, prompts=["red"] * 70, priors={"m1": 0.4})
    knn = Knn(embedder)
    knn.fit(train)
    assert ask(knn, train, ["red"]) == [1]


def test_knn_must_be_fitted_first(training, embedder):
    with pytest.raises(RuntimeError, match="fit"):
        ask(Knn(embedder), training(SCORES), ["red"])


def test_gary8d_takes_the_strongest_when_money_is_free_and_the_cheapest_when_it_is_all(training):
    train = training(SCORES, COSTS)
    gary = Gary8D()
    gary.fit(train)
    assert ask(gary, train, ["Write a function that adds two numbers."]) == [2]
    assert ask(gary, train, ["Write a function that adds two numbers."], weight=30.0) == [0]
    chain = []
    for _ in range(3):
        chain += ask(gary, train, ["Fix the race."], tried=chain)
    assert sorted(chain) == [0, 1, 2]
    assert len(gary.preference(tasks_of("Fix it.", "Design a distributed database."), 0, 1)) == 2


def play_with(router, scores, attempts=3, accepted=None, costs=None, train=None):
    scores = np.array(scores, dtype=float)
    return play(
        router,
        tasks_of(*[f"p{i}" for i in range(len(scores))]),
        train.models,
        scores >= 0.5 if accepted is None else np.array(accepted),
        costs,
        attempts=attempts,
        cost_weight=0.0,
        seed=0,
    )


def test_an_episode_ends_with_the_first_accepted_answer_or_the_last_attempt(training):
    train = training(SCORES, COSTS)
    tried = play_with(Cheapest(), SCORES, train=train, costs=np.array(COSTS))
    assert tried.tolist() == [[0, -1, -1], [0, 1, -1], [0, 1, 2], [0, 1, 2]]
    outcome = score(tried, np.array(SCORES, float), np.array(COSTS))
    assert outcome.success.tolist() == [1, 1, 1, 0]
    assert outcome.cost == pytest.approx([0.1, 0.5, 1.5, 1.5])
    assert outcome.attempts.tolist() == [1, 2, 3, 3]
    assert score(tried, np.array(SCORES, float), None).cost.tolist() == [0, 0, 0, 0]


def test_success_is_the_true_score_of_the_answer_kept_whatever_the_verifier_said(training):
    train = training(SCORES, COSTS)
    wrongly = [[True, False, False], [False, False, False]]
    tried = play_with(Cheapest(), [[0.2, 1, 1], [1, 1, 0.3]], accepted=wrongly, train=train)
    assert score(tried, np.array([[0.2, 1, 1], [1, 1, 0.3]]), None).success.tolist() == [0.2, 0.3]


def test_more_attempts_than_models_are_no_harm(training):
    train = training(SCORES, COSTS)
    assert play_with(Cheapest(), [[0, 0, 0]], attempts=5, train=train).tolist() == [[0, 1, 2, -1, -1]]


@pytest.mark.parametrize(
    ("answers", "message"),
    [([[STOP]], "outside"), ([[3]], "outside"), ([[0], [0]], "second time"), ([[0, 1]], "shape"), ([[0.5]], "float")],
)
def test_a_router_that_breaks_the_rules_is_found_out(training, answers, message):
    class Rogue:
        name, seeded = "rogue", False

        def choose(self, state, cost_weight):
            return np.array(answers[state.tried.shape[1]])

    with pytest.raises(RouterFaultError, match=message):
        play_with(Rogue(), [[0, 0, 0]], train=training(SCORES, COSTS))


@pytest.mark.parametrize(
    ("models", "message"),
    [([], "at least one"), ([0, 1, 2], "2 are allowed"), ([0, 0], "twice"), ([1, 0], "went on after")],
)
def test_attempts_from_elsewhere_are_checked(models, message):
    with pytest.raises(ValueError, match=message):
        check_attempts(["a", "b", "c"], np.array([False, True, False]), models, 2)
    check_attempts(["a", "b", "c"], np.array([False, True, False]), [0, 1], 2)
