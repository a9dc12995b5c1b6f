# ruff: noqa: RUF001 (the words of other alphabets hold letters that look like Latin ones)
"""The words that the text analysis knows: what they say about the kind of task, and about how hard it is.

Words are matched whole, so that "test" never fires in "latest". The usual English forms of a word count as the
word ("tests", "testing", "tested"), and so do its commonest slips of the keyboard (`_slips`). Entries of two
words are phrases, written apart or with a hyphen ("race condition", "lock-free").

The weights are judgements, not fits: no outcome table was used to choose them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from monkey_coder.models import TASK_TYPES, TaskType

_VOTES: Final[Mapping[TaskType, Mapping[int, str]]] = {
    "code_generation": {
        5: "implement, scaffold, boilerplate",
        4: "generate, build, code, program, autocomplete, hello world",
        3: "write, create, add, develop, function, class, endpoint, script, snippet, regex, component, feature, "
        "set up, setup, configure, complete, solve",
        1: "method, algorithm, return, output, array, integer, string, make, need, want, convert, parse, print, "
        "python, javascript, typescript, java, rust, golang, sql, html",
    },
    "code_review": {
        7: "review, code review, pull request, merge request",
        5: "critique, feedback, nitpick, lgtm, pr, mr",
        2: "diff, patch, readability, approve, maintainability, assess",
    },
    "debugging": {
        7: "debug, traceback, stacktrace, segfault, stack trace, root cause, core dump, race condition",
        6: "bug, bugfix, fix, crash, hotfix, troubleshoot, diagnose, heisenbug, deadlock",
        4: "error, exception, fail, failure, failing, broken, wrong, incorrect, hang, freeze, stuck, panic, repair, "
        "bisect, reproduce, intermittent, flaky, misbehave, memory leak, livelock, crashloop, t work, not work, "
        "sometimes, randomly, at random",
        2: "issue, problem, unexpected, unexpectedly, warning, raise, throw, why, regression, corrupt, undefined, nan",
    },
    "refactoring": {
        8: "refactor, refactoring",
        6: "restructure, modularize, modularise, deduplicate, decouple, tech debt, technical debt, dead code, clean up",
        5: "rename, simplify, cleanup, extract, inline, rewrite, modernize, modernise, reorganize, reorganise, tidy, "
        "migrate, port, split, legacy, extract method",
        2: "duplicate, duplication, solid, readable, consolidate, upgrade",
    },
    "testing": {
        8: "unit test, integration test, regression test, property test, test suite, test case, test coverage, "
        "load test, fuzz test, write test, add test, e2e",
        5: "test, pytest, junit, jest, mocha, unittest, hypothesis, fuzz, mock, stub, fixture, selenium, cypress, "
        "playwright, tdd, testcase",
        2: "assert, assertion, coverage, qa, verify, parametrize, edge case",
    },
    "documentation": {
        8: "docstring, readme, changelog, release note, user guide, api doc, javadoc, jsdoc",
        6: "document, documentation, docs, tutorial, wiki, runbook",
        4: "explain, describe, summarize, summarise, comment, explanation, summary, translate, guide, howto, manual",
        2: "clarify, what does, example, glossary, typo, wording, grammar",
    },
    "architecture": {
        8: "architecture, architect, architectural, system design, design document, bounded context",
        6: "design, microservice, monolith, tradeoff, blueprint, trade off, event driven, domain driven, "
        "service mesh, tech stack, schema design, data model",
        3: "compare, scalable, scalability, topology, infrastructure, component diagram, multi tenant, multi region, "
        "sharding, high availability, distributed, system",
        2: "strategy, roadmap, service, gateway, queue, scale, evaluate",
    },
    "security": {
        8: "security, vulnerability, vulnerable, exploit, cve, owasp, pentest, xss, csrf, ssrf, sqli, sql injection, "
        "threat model, timing attack, side channel, privilege escalation, path traversal, buffer overflow",
        6: "secure, insecure, attack, attacker, malicious, injection, rce, malware, sanitize, sanitise, harden, "
        "cryptography, cryptographic, encrypt, encryption, penetration, phishing, zero trust, sandbox escape",
        3: "authentication, authorization, authorisation, auth, oauth, jwt, tls, ssl, rbac, password, credential, "
        "secret, permission, sandbox, csp, cors, audit, signature, hash, token leak",
    },
    "performance": {
        8: "performance, bottleneck, slow query, memory usage, cpu usage, flame graph, cache miss, high latency",
        6: "optimize, optimise, optimization, optimisation, slow, slowly, slower, faster, latency, throughput, "
        "profile, profiler, speedup, speed, benchmark, p99, p95, tune",
        3: "vectorize, vectorise, parallelize, parallelise, efficient, efficiency, quick, hotspot, memoize, memoise, "
        "simd, qps, rps, index scan",
        2: "cache, memory, cpu, parallel, gpu",
    },
}

_HARD: Final[Mapping[int, str]] = {
    75: "byzantine, paxos, linearizable, linearizability, linearisable, heisenbug, deadlock, livelock, lock free, "
    "wait free, np hard, np complete, formally verify, formal verification, undecidable, zero knowledge, "
    "memory model, homomorphic, memory ordering, exactly once, split brain, side channel, timing attack, "
    "halting problem",
    60: "race condition, data race, consensus, crdt, serializability, serializable, quorum, cryptanalysis, use after, "
    "eventual consistency, strong consistency, causal consistency, undefined behavior, undefined behaviour, "
    "zero downtime, leader election, distributed transaction, two phase, type inference, garbage collector, "
    "memory corruption, privilege escalation, remote code, isolation level, theorem, lemma, starvation, soundness, "
    "write skew, phantom read, vector clock, compare and, cache coherence, happens before, priority inversion",
    42: "concurrency, distributed, race, proof, prove, mutex, semaphore, atomicity, raft, sharding, shard, failover, "
    "kernel, exploit, compiler, interpreter, decompile, hypervisor, bytecode, cryptography, cryptographic, simd, "
    "heap corruption, memory leak, buffer overflow, intermittent, nondeterministic, nondeterminism, "
    "non deterministic, reentrancy, fault tolerant, fault tolerance, multi region, multi tenant, real time, "
    "numerical stability, backpropagation, multithreaded, multi threaded, thread safe, thread safety, segfault, "
    "core dump, lifetimes, disaster recovery, state machine, from scratch, approximation, monads, cuda, jit, "
    "event sourcing, saga",
    22: "concurrent, asynchronous, consistency, replication, replica, migrate, migration, idempotent, idempotency, "
    "transaction, transactional, rollback, backpressure, scalable, scalability, microservice, monolith, invariant, "
    "vulnerability, encryption, encrypt, injection, architecture, architect, lock, locking, parallelize, parallelise, "
    "parallelism, thread, threading, multithreading, throughput, backward compatible, backwards compatible, legacy, "
    "codebase, entire system, production, outage, incident, failing in, optimal, complexity, recursive, recursion, "
    "dynamic programming, graph, eigenvalue, integral, modulo, combinatorics, probability, parser, grammar, "
    "allocator, scheduler, protocol, throttle, rate limiter, high availability, security, flaky, sporadic, "
    "sporadically, hipaa, gdpr, pci, compliance, payment, bottleneck, root cause, latency, oauth, sandbox, "
    "constraint solver, physics, load balancer, service mesh, kubernetes, terraform, machine learning, neural, "
    "transformer, embedded, firmware, debugger, emulator, lexer, sometimes, randomly, at random",
    12: "cache, caching, lru, async, await, queue, database, schema, index, query, join, api, auth, authentication, "
    "authorization, authorisation, permission, token, websocket, stream, streaming, pipeline, scheduler, retry, "
    "timeout, memory, performance, optimize, optimise, algorithm, efficient, tree, matrix, heap, hash, integration, "
    "refactor, design, tradeoff, trade off, edge case, regression, reproduce, crash, corrupt, overflow, precision, "
    "timezone, unicode, encoding, generics, generic, macro, pointer, ownership, binary, serialization, serialisation, "
    "deploy, deployment, infrastructure, rewrite, system, minimum, maximum, subarray, permutation, subsequence, "
    "interval, deduce",
    5: "must, without, except, unless, ensure, guarantee, exactly, every, each, several, multiple, across, "
    "constraint, requirement, handle, support, module, service, class, endpoint, error, exception, test, review, why",
}

_EASY: Final[Mapping[int, str]] = {
    60: "hello world, boilerplate, typo, fizzbuzz, lorem ipsum",
    40: "rename, reformat, indentation, whitespace, getter, setter, capitalize, capitalise, spelling, placeholder, "
    "gitignore, getters, setters, wording, one liner, crud, lowercase, uppercase, alphabetize",
    20: "trivial, simple, simply, basic, easy, small, tiny, minor, quick, beginner, toy, dummy, sample, todo, "
    "comment, docstring, format, prettier, lint, linter, readme, bump, color, colour, css, button, label, greet, "
    "greeting, echo, scaffold, template, stub, capital, translate, summarize, summarise, getting started, example",
}

_ABROAD: Final[tuple[tuple[TaskType | None, int, int, str], ...]] = (
    # (task type, votes, hardness, words), inflected as found; the main words of other languages, loanwords aside.
    (
        "debugging",
        6,
        6,
        "fehler absturz beheben erreur corriger bogue corrige fallo arreglar corregir erro corrigir falha "
        "errore correggere hata düzelt",
    ),
    (
        "code_generation",
        4,
        0,
        "schreibe erstelle programmiere écris écrire crée créer escribe crear crea escreva criar crie scrivi "
        "creare funktion fonction función função funzione yaz",
    ),
    (
        "code_review",
        7,
        5,
        "überprüfe begutachte réviser relire revisa revisar revise revisione incele",
    ),
    (
        "refactoring",
        8,
        12,
        "refaktorisiere refaktorieren umstrukturieren refactorise refactorer refactoriza refactorizar "
        "refatore refatorar refattorizza",
    ),
    (
        "testing",
        6,
        5,
        "unittests prüfung essais prueba pruebas testes teste prova",
    ),
    (
        "documentation",
        6,
        0,
        "dokumentation dokumentiere erkläre beschreibe documente explique documentación explica documenta "
        "documentação spiega documentazione açıkla",
    ),
    (
        "architecture",
        7,
        22,
        "architektur entwerfe entwurf concevoir conçois arquitectura diseña diseñar arquitetura projete "
        "architettura progetta mimari",
    ),
    (
        "security",
        8,
        22,
        "sicherheit sicherheitslücke schwachstelle sécurité vulnérabilité faille seguridad vulnerabilidad "
        "segurança vulnerabilidade sicurezza vulnerabilità güvenlik",
    ),
    (
        "performance",
        7,
        14,
        "leistung optimiere langsam beschleunige optimiser optimise lent lente rendimiento optimiza optimizar "
        "lento desempenho otimize otimizar prestazioni ottimizza performans",
    ),
    (
        None,
        0,
        40,
        "nebenläufigkeit verklemmung verteilt verteilte verteiltes verteilten concurrence distribué "
        "distribuée interblocage concurrencia distribuido distribuida concorrência distribuído distribuída "
        "concorrenza distribuito "
        "beweise beweis démontre prouve demuestra prove dağıtık",
    ),
)

_STEMS: Final[tuple[tuple[TaskType | None, int, int, str], ...]] = (
    # Scripts that write no spaces, and languages that inflect or glue heavily: looked for inside a run of letters.
    (
        "debugging",
        6,
        8,
        "调试 修复 错误 报错 崩溃 漏洞修复 デバッグ バグ エラー 修正 "
        "例外 디버깅 디버그 버그 오류 수정 ошибк исправ отлад",
    ),
    (
        "code_generation",
        4,
        0,
        "编写 写一个 实现 生成 創建 创建 函数 作成 実装 関数 書いて 작성 구현 함수 напиш напис реализ",
    ),
    (
        "code_review",
        7,
        5,
        "代码审查 评审 审查 レビュー 리뷰 검토 ревью",
    ),
    (
        "refactoring",
        8,
        12,
        "重构 重構 リファクタリング 리팩토링 리팩터링 рефактор",
    ),
    (
        "testing",
        6,
        5,
        "单元测试 测试 測試 テスト 테스트 тестир тесты",
    ),
    (
        "documentation",
        6,
        0,
        "文档 文檔 注释 解释 说明 ドキュメント 説明 문서 설명 документ объясн",
    ),
    (
        "architecture",
        7,
        22,
        "架构 架構 系统设计 设计 アーキテクチャ 設計 아키텍처 설계 архитектур спроектир",
    ),
    (
        "security",
        8,
        22,
        "安全 漏洞 加密 注入 セキュリティ 脆弱性 暗号 보안 취약점 암호화 безопасност уязвим шифров",
    ),
    (
        "performance",
        7,
        14,
        "性能 优化 優化 延迟 最適化 高速化 성능 최적화 производительност оптимиз",
    ),
    (
        None,
        0,
        60,
        "死锁 死鎖 竞态 并发 併發 分布式 分散式 一致性 共识 证明 迁移 "
        "デッドロック 競合 並行 分散 整合性 証明 교착 동시성 분산 "
        "일관성 증명 взаимоблокиров распредел многопоточн "
        "гонк доказат докаж",
    ),
)


GENERAL: Final = TASK_TYPES.index("general")
NOTHING: Final = 0
"""The entry of what says nothing."""


class Fact(NamedTuple):
    """What an entry says.

    Attributes:
        topic: Index into `TASK_TYPES` that it votes for (of `general`: none).
        votes: How strongly.
        hard: Points by which it makes a task harder.
        easy: Points by which it makes it easier.
    """

    topic: int = GENERAL
    votes: int = 0
    hard: int = 0
    easy: int = 0


KnownWord = tuple[int, Mapping[str, int]]
"""The entry of a word, and from words that make a phrase with it as their first to the phrases' entries."""


class Vocabulary(NamedTuple):
    """Lookup tables. An *entry* is a number that all forms of one word share.

    Attributes:
        words: What is known of a word.
        stems: Words and stems of other scripts, looked for anywhere, to entry.
        facts: What each entry says.
    """

    words: Mapping[str, KnownWord]
    stems: Mapping[str, int]
    facts: tuple[Fact, ...]


def _forms(word: str) -> Iterator[str]:
    """Yield an English word with its regular plural, third person, past and -ing forms."""
    yield word
    if len(word) < 3 or not word.isascii() or not word.isalpha():
        return
    if word.endswith("y") and word[-2] not in "aeiou":
        yield from (word[:-1] + "ies", word[:-1] + "ied", word + "ing")
    elif word.endswith("e"):
        yield from (word + "s", word + "d", word[:-1] + "ing")
    else:
        plural = "es" if word.endswith(("s", "x", "ch", "sh")) else "s"
        yield from (word + plural, word + "ed", word + "ing")
        vowel_between = word[-1] in "bdgklmnprt" and word[-2] in "aeiou" and word[-3] not in "aeiou"
        if vowel_between:
            yield from (word + word[-1] + "ed", word + word[-1] + "ing")


def _slips(word: str) -> Iterator[str]:
    """Yield a word with two inner letters swapped and, if it is long, with one left out or doubled."""
    for at in range(1, len(word) - 1):
        if len(word) >= 5 and at < len(word) - 2:
            yield word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        if len(word) >= 7:  # shorter words would turn into others, as "crash" does into "cash"
            yield word[:at] + word[at + 1 :]
            yield word[:at] + word[at] + word[at:]


def _build() -> Vocabulary:
    facts: dict[str, list[int]] = {"": [*Fact()]}  # word or phrase: what it says; the first is NOTHING

    def note(listed: str, column: int, value: int, topic: int = GENERAL) -> None:
        for text in listed.split(", "):
            fact = facts.setdefault(text, [GENERAL, 0, 0, 0])
            fact[column] = value
            if topic != GENERAL:
                fact[0] = topic

    for task, levels in _VOTES.items():
        for weight, listed in levels.items():
            note(listed, 1, weight, TASK_TYPES.index(task))
    for column, levels in ((2, _HARD), (3, _EASY)):
        for weight, listed in levels.items():
            note(listed, column, weight)
    rows = list(facts.values())
    words, phrases = _spellings(list(facts)[1:])
    stems: dict[str, int] = {}
    for foreign, target in ((_ABROAD, words), (_STEMS, stems)):
        for kind, votes, hard, listed in foreign:
            for word in listed.split():
                target.setdefault(word, len(rows))
                rows.append([TASK_TYPES.index(kind or "general"), votes, hard, 0])
    return Vocabulary(
        words={word: (words.get(word, NOTHING), phrases.get(word, {})) for word in words | phrases},
        stems=stems,
        facts=tuple(Fact(*row) for row in rows),
    )


def _spellings(texts: list[str]) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """Number the words, and phrases by first and second word, by their place in the list from 1 on, in all spellings.

    A listed word beats a form of another one, and a form beats a slip. Only listed words have slips: those of
    forms hit too many other words ("sharded" would claim "shared").
    """
    words: dict[str, int] = {}
    phrases: dict[str, dict[str, int]] = {}
    for spell in (lambda word: (word,), _forms, _slips):
        for entry, text in enumerate(texts, start=1):
            first, _, second = text.partition(" ")
            for spelling in spell(second or first):
                if second:
                    phrases.setdefault(first, {}).setdefault(spelling, entry)
                else:
                    words.setdefault(spelling, entry)
    return words, phrases


VOCABULARY: Final = _build()
