"""Reading a task: what its words, shape and length say, in any language, and never by accident."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monkey_coder.core.complexity import (
    HEAD_CHARS,
    LEVEL_FLOORS,
    OUTPUT_TOKENS,
    analyse,
    estimate_tokens,
    level_of,
    persona_for,
    slash_command,
)
from monkey_coder.core.vocabulary import VOCABULARY
from monkey_coder.models import COMPLEXITY_LEVELS, CONTEXT_TYPES, TASK_TYPES, ExecuteRequest, SourceFile, TaskAnalysis

TRACE = """
Traceback (most recent call last):
  File "app.py", line 12, in <module>
    main()
  File "app.py", line 8, in main
    raise ValueError("bad")
ValueError: bad
"""


def read(prompt: str, **fields: object) -> TaskAnalysis:
    return analyse(ExecuteRequest(prompt=prompt, **fields))


prompts = st.text(min_size=1, max_size=300)
words = st.lists(
    st.sampled_from(
        ["please", "write", "a", "tests", "fix", "crash", "in", "our", "distributed", "cache", "simple", "docs"]
    ),
    min_size=1,
    max_size=30,
).map(" ".join)


class TestKindOfTask:
    @pytest.mark.parametrize(
        ("prompt", "expected"),
        [
            ("Write a function that reverses a string", "code_generation"),
            ("Implement a binary search", "code_generation"),
            ("Review this pull request", "code_review"),
            ("Why does my app crash under load?", "debugging"),
            ("The build fails with a linker error", "debugging"),
            ("Refactor this class to use dependency injection", "refactoring"),
            ("Rename the variable foo to bar", "refactoring"),
            ("Write unit tests for the parser", "testing"),
            ("Document the public API", "documentation"),
            ("Explain how this function works", "documentation"),
            ("Design a rate limiter that works across regions", "architecture"),
            ("Find SQL injection vulnerabilities in this endpoint", "security"),
            ("Optimize this slow query; it takes 30 s", "performance"),
            ("Our p99 latency doubled after the deploy", "performance"),
            ("What is the capital of France?", "general"),
            ("Who wrote Faust?", "general"),
        ],
    )
    def test_is_read_from_the_words(self, prompt: str, expected: str) -> None:
        assert read(prompt).task_type == expected

    @pytest.mark.parametrize("prompt", ["The latest contest was the greatest", "Protest in the fastest attested city"])
    def test_a_word_inside_another_means_nothing(self, prompt: str) -> None:
        assert read(prompt).task_type == "general"
        assert read(prompt).evidence == 0.0

    def test_a_debugger_is_no_bug(self) -> None:
        assert read("Write a debugger for Lua").task_type == "code_generation"

    @pytest.mark.parametrize("form", ["test", "tests", "testing", "tested", "TEST", "Tests,", "(testing)", "_test_"])
    def test_forms_case_and_punctuation_of_a_word_do_not_matter(self, form: str) -> None:
        assert read(f"{form} the release").task_type == "testing"

    def test_identifiers_are_single_words(self) -> None:
        assert read("What does test_fix_review_docs hold?").task_type not in {"testing", "debugging", "code_review"}

    @given(st.sampled_from(sorted(VOCABULARY.words)), st.sampled_from(["qx", "zw"]), st.booleans())
    def test_no_known_word_fires_within_a_longer_one(self, word: str, glue: str, before: bool) -> None:
        grown = glue + word if before else word + glue
        assert read(f"{grown} it").evidence == read("qqq it").evidence

    @given(st.sampled_from(TASK_TYPES), prompts)
    def test_an_explicit_type_wins(self, task_type: str, prompt: str) -> None:
        analysis = read(prompt, task_type=task_type)
        assert analysis.task_type == task_type
        assert analysis.evidence == 1.0
        if task_type != "general":
            assert analysis.context_type == task_type

    def test_more_signs_are_more_evidence(self) -> None:
        weak, strong = read("fix the documentation of the tests"), read("debug this crash: the traceback shows a bug")
        assert strong.evidence > weak.evidence > 0.0

    def test_a_general_task_still_has_the_nearest_context(self) -> None:
        assert read("Find the vulnerability", task_type="general").context_type == "security"
        assert read("Tell me a story", task_type="general").context_type == "code_generation"

    def test_words_in_code_do_not_name_the_task(self) -> None:
        prompt = "Document this module\n```python\ndef test_crash(): fix(bug); debug(error); assert broken\n```"
        assert read(prompt).task_type == "documentation"

    def test_a_bare_trace_is_debugging(self) -> None:
        assert read(TRACE).task_type == "debugging"


class TestComplexity:
    @pytest.mark.parametrize(
        "prompt",
        [
            "Why does my app deadlock under load?",
            "Fix the race condition",
            "Is this problem NP-hard?",
            "Prove that this lock-free queue is linearizable",
            "Implement Raft consensus from scratch",
            "Migrate our monolith to microservices with zero downtime",
            "Design a distributed rate limiter with strong consistency across regions",
        ],
    )
    def test_short_prompts_can_be_hard(self, prompt: str) -> None:
        assert read(prompt).complexity > 0.55

    @pytest.mark.parametrize(
        "prompt",
        [
            "Write hello world in Go",
            "Fix typo in the README",
            "What is 2+2?",
            "Generate boilerplate getters and setters for these fields: " + ", ".join(f"field_{n}" for n in range(300)),
        ],
    )
    def test_long_or_technical_prompts_can_be_easy(self, prompt: str) -> None:
        assert read(prompt).level in {"trivial", "simple"}

    @pytest.mark.parametrize(
        ("right", "wrong"),
        [
            ("fix the race condition in our cache", "Fix the race conditon in our cahce!!!"),
            ("Find the deadlock in the concurrency layer", "find teh DEADLOCK, in the concurency layer..."),
            ("harden the authentication", "harden the authetnication"),
        ],
    )
    def test_slips_of_the_keyboard_do_not_make_a_task_easier(self, right: str, wrong: str) -> None:
        assert read(wrong).complexity == pytest.approx(read(right).complexity, abs=0.08)
        assert read(wrong).task_type == read(right).task_type

    @pytest.mark.parametrize(
        ("prompt", "task_type"),
        [
            ("Behebe den Deadlock in unserem Thread-Pool", "debugging"),
            ("Corrige el error de concurrencia en nuestro caché distribuido", "debugging"),
            ("Conçois l'architecture d'un système distribué", "architecture"),
            ("修复我们缓存中的竞态条件", "debugging"),
            ("デッドロックを修正してください", "debugging"),
            ("교착 상태 버그를 수정해 주세요", "debugging"),
            ("Исправь взаимоблокировку в пуле потоков", "debugging"),
        ],
    )
    def test_hard_tasks_in_other_languages_stay_hard(self, prompt: str, task_type: str) -> None:
        analysis = read(prompt)
        assert analysis.task_type == task_type
        assert COMPLEXITY_LEVELS.index(analysis.level) >= COMPLEXITY_LEVELS.index("moderate")

    def test_a_decomposed_accent_is_the_same_letter(self) -> None:
        assert read("Améliore la se\u0301curité") == read("Améliore la sécurité")

    @given(st.one_of(words, st.text(alphabet=st.characters(codec="utf-8"), min_size=1, max_size=200)))
    def test_a_stack_trace_never_makes_a_task_easier(self, prompt: str) -> None:
        assert read(prompt + TRACE).complexity >= read(prompt).complexity

    @given(words, st.integers(0, 10_000_000))
    def test_files_never_make_a_task_easier(self, prompt: str, chars: int) -> None:
        before = read(prompt).complexity
        assert read(prompt, files=(SourceFile(path="a.py", chars=chars),)).complexity > before

    def test_bigger_and_more_files_are_harder(self) -> None:
        sizes = [
            read("Fix it", files=tuple(SourceFile(path=f"{n}.py", chars=chars) for n in range(count))).complexity
            for count, chars in [(0, 0), (1, 100), (1, 100_000), (8, 100_000)]
        ]
        assert sizes == sorted(set(sizes))

    def test_steps_and_code_make_a_task_harder(self) -> None:
        plain = "Do this: parse, check, store"
        steps = "Do this:\n1. parse\n2. check\n3. store"
        assert read(steps).complexity > read(plain).complexity
        assert read(plain + "\n```\nx = 1\n```").complexity > read(plain).complexity

    def test_levels_follow_their_floors(self) -> None:
        for level, floor in zip(COMPLEXITY_LEVELS, LEVEL_FLOORS, strict=True):
            assert level_of(floor) == level
        assert level_of(0.1999) == "trivial"
        assert level_of(1.0) == "critical"


class TestAnyPrompt:
    @given(st.text(min_size=1), st.sampled_from([None, *TASK_TYPES]))
    def test_is_read_the_same_every_time(self, prompt: str, task_type: str | None) -> None:
        analysis = read(prompt, task_type=task_type)
        assert analysis == read(prompt, task_type=task_type)
        assert analysis.level == level_of(analysis.complexity)
        assert analysis.context_type in CONTEXT_TYPES

    @given(st.text(alphabet=" \n`/_-#1.*\u3000\u200b\u0130ﬃ\U0001d54f調死锁", min_size=1, max_size=60))
    def test_odd_characters_do_no_harm(self, prompt: str) -> None:
        assert 0.0 <= read(prompt).complexity <= 1.0

    @given(words | st.text(alphabet=st.characters(codec="ascii"), min_size=1, max_size=80))
    def test_a_character_beyond_ascii_changes_no_other_word(self, prompt: str) -> None:
        plain, odd = read(prompt), read(prompt + " →")
        assert (odd.task_type, odd.context_type, odd.evidence) == (plain.task_type, plain.context_type, plain.evidence)

    def test_other_processes_agree(self) -> None:
        prompt = "Design a distributed cache: fix races, test it, document it, keep latency low, migrate data safely"
        code = (
            "from monkey_coder.core.complexity import analyse; from monkey_coder.models import ExecuteRequest;"
            f"print(analyse(ExecuteRequest(prompt={prompt!r})))"
        )
        answers = {
            subprocess.run(
                [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
            ).stdout
            for seed in ("1", "2")
        }
        assert answers == {f"{read(prompt)}\n".encode()}

    def test_the_middle_of_a_long_prompt_is_not_read(self) -> None:
        filler = "lorem " * HEAD_CHARS
        assert read("Sum up: " + filler + " deadlock " + filler).task_type == "general"
        assert read("Sum up: " + filler + filler + " Fix the deadlock").complexity > 0.6

    @pytest.mark.parametrize("char", ["x", "word ", "字", "\n1. ", "``` ", "😀"])
    def test_the_middle_of_a_megabyte_is_not_read(self, char: str) -> None:
        prompt = (char * (1_000_000 // len(char)))[:1_000_000]
        middle = " traceback deadlock kubernetes security " * 5_000
        changed = prompt[:400_000] + middle + prompt[400_000 + len(middle) :]
        assert len(changed) == len(prompt)
        assert analyse(ExecuteRequest(prompt=changed)) == analyse(ExecuteRequest(prompt=prompt))


class TestSlashCommandsAndPersonas:
    @pytest.mark.parametrize(
        ("prompt", "persona", "context"),
        [
            ("/dev add a cache", "developer", "code_generation"),
            ("/dev fix the crash", "developer", "debugging"),
            ("/arch a cache", "architect", "architecture"),
            ("/review this", "reviewer", "code_review"),
            ("/security check this", "security_analyst", "security"),
            ("/perf of the parser", "performance_expert", "performance"),
            ("/test the parser", "tester", "testing"),
            ("  /DOCS: the parser", "technical_writer", "documentation"),
        ],
    )
    def test_a_command_selects_persona_and_context(self, prompt: str, persona: str, context: str) -> None:
        analysis = read(prompt)
        assert persona_for(ExecuteRequest(prompt=prompt), analysis) == persona
        assert (analysis.context_type, analysis.evidence) == (context, 1.0)

    @pytest.mark.parametrize(
        "prompt", ["/dev/null is full", "/development plan", "say /test", "/unknown x", "//dev", "/"]
    )
    def test_paths_and_other_words_are_no_commands(self, prompt: str) -> None:
        assert slash_command(prompt) is None

    def test_explicit_wins_over_command_wins_over_inference(self) -> None:
        request = ExecuteRequest(prompt="/security fix the crash", task_type="debugging")
        analysis = analyse(request)
        assert analysis.task_type == "debugging"
        assert persona_for(request, analysis) == "security_analyst"
        assert persona_for(request.model_copy(update={"persona": "tester"}), analysis) == "tester"
        plain = ExecuteRequest(prompt="fix the crash")
        assert persona_for(plain, analyse(plain)) == "developer"


class TestTokens:
    def test_are_a_quarter_of_the_characters_rounded_up(self) -> None:
        request = ExecuteRequest(prompt="abcde", files=(SourceFile(path="a", chars=10),))
        assert estimate_tokens(request, analyse(request))[0] == 4

    def test_given_numbers_stand(self) -> None:
        request = ExecuteRequest(prompt="x" * 1000, input_tokens=7, expected_output_tokens=0)
        assert estimate_tokens(request, analyse(request)) == (7, 0)

    @given(st.sampled_from(TASK_TYPES), prompts)
    def test_answers_grow_with_complexity_around_the_default_of_the_type(self, task_type: str, prompt: str) -> None:
        request = ExecuteRequest(prompt=prompt, task_type=task_type)
        analysis = analyse(request)
        tokens = estimate_tokens(request, analysis)[1]
        assert 0.5 * OUTPUT_TOKENS[task_type] <= tokens <= 1.5 * OUTPUT_TOKENS[task_type]
        harder = analysis._replace(complexity=1.0)
        assert estimate_tokens(request, harder)[1] >= tokens


@settings(max_examples=20)
@given(st.integers(1, 30))
def test_a_repeated_prompt_is_not_read_as_many_tasks(times: int) -> None:
    once, often = read("Fix the crash. "), read("Fix the crash. " * times)
    assert often.task_type == once.task_type
    assert often.complexity - once.complexity < 0.25
