from hashlib import sha256

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from monkey_coder.evaluation.splits import folds, groups, holdout, prompt_number
from monkey_coder.evaluation.verifier import uniform, verdicts

PROMPTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), min_size=1, max_size=30)


def test_the_fold_is_the_hash_of_the_trimmed_prompt_modulo_k():
    expected = int(sha256(b"fix it").hexdigest(), 16)
    assert prompt_number("  fix it\n") == expected
    assert folds(["fix it"], 7).tolist() == [expected % 7]
    assert holdout(["fix it"], 0.3).tolist() == [expected % 1000 < 300]


@given(PROMPTS, st.integers(2, 9))
def test_duplicates_never_fall_on_both_sides(prompts, count):
    padded = [f"\n {prompt}  " for prompt in prompts]
    assert np.array_equal(folds(prompts, count), folds(padded, count))
    assert np.array_equal(holdout(prompts, 0.3), holdout(padded, 0.3))
    assert groups([*prompts, *padded]).tolist() == [*groups(prompts), *groups(prompts)]


def test_the_share_held_out_is_near_what_was_asked_for():
    assert abs(holdout([f"prompt {i}" for i in range(4000)], 0.3).mean() - 0.3) < 0.03


def test_noise_follows_the_published_rule():
    u = int.from_bytes(sha256(b"3:task-1:some model").digest()[:8], "big") / 2**64
    assert uniform(3, "task-1", "some model") == u
    for noise in (u - 1e-9, u + 1e-9):
        for score, good in ((0.5, True), (0.49, False)):
            assert verdicts(np.array([[score]]), ["task-1"], ["some model"], 3, noise).item() == good ^ (u < noise)


def test_without_noise_the_verifier_is_right_and_with_noise_1_always_wrong():
    scores = np.array([[0.0, 0.5], [1.0, 0.2]])
    good = [[False, True], [True, False]]
    assert verdicts(scores, ["a", "b"], ["x", "y"], 0, 0.0).tolist() == good
    assert verdicts(scores, ["a", "b"], ["x", "y"], 0, 1.0).tolist() == np.logical_not(good).tolist()


def test_the_share_of_errors_is_the_noise():
    ids = [str(i) for i in range(3000)]
    assert abs(verdicts(np.zeros((3000, 1)), ids, ["m"], 0, 0.1).mean() - 0.1) < 0.02
