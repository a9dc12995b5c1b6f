"""Which cosine must two prompts reach to count as near-identical? Measured on generated edits of real prompts.

Usage: calibrate_similarity.py TABLE... [--prompts 1000] [--seed 0] [--keep 0.995]

Every prompt of the tables (up to --prompts, drawn with --seed) is edited once in each way that applies. Half of the
prompts choose the threshold: the highest multiple of 0.01 at which --keep of the light edits that the wording test
takes for the original still pass. The other half shows what that threshold lets through, with the wording test and
without it. Prints Markdown.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from prompt_edits import DANGEROUS, HARD_LIGHT, LIGHT, Edit, read_rows

from monkey_coder.quantum.embedding import StaticEmbedder
from monkey_coder.quantum.prompt_similarity import PromptSimilarity, SimilarityOptions, cosines, quantise

GRID = np.round(np.arange(0.50, 1.0, 0.01), 2)


@dataclass(frozen=True)
class Pair:
    """A prompt and its edit.

    Attributes:
        prompt: Place of the prompt.
        kind: Name of the edit.
        dangerous: Whether the edit asks for something else.
        same_wording: Whether the likenesses are equal.
        comparable: Whether the lengths are.
        cosine: Of the embeddings, one of them quantised.
    """

    prompt: int
    kind: str
    dangerous: bool
    same_wording: bool
    comparable: bool
    cosine: float


def pairs_of(prompts: list[str], rng: np.random.Generator) -> list[Pair]:
    """Edit every prompt in every way that applies, and compare."""
    embedder, similar = StaticEmbedder.load(), PromptSimilarity(b"calibration", SimilarityOptions(threshold=0.0))
    pairs: list[Pair] = []
    for place, prompt in enumerate(prompts):
        edited: list[tuple[str, Edit, bool]] = [(n, e, False) for n, e in {**LIGHT, **HARD_LIGHT}.items()]
        edited += [(n, e, True) for n, e in DANGEROUS.items()]
        made = [(name, edit(prompt, rng), dangerous) for name, edit, dangerous in edited]
        changed = [(name, text, dangerous) for name, text, dangerous in made if text is not None and text != prompt]
        rows = embedder.embed([prompt, *(text for _, text, _ in changed)])
        vectors = quantise(rows[:1]) * len(changed)
        lengths = [len(text) for _, text, _ in changed]
        comparable = similar.agree(rows[1:], vectors, lengths, [len(prompt)] * len(changed))
        here = similar.likeness(prompt)
        for (name, text, dangerous), cosine, length in zip(
            changed, cosines(rows[1:], vectors).tolist(), comparable.tolist(), strict=True
        ):
            same = here is not None and similar.likeness(text) == here
            pairs.append(Pair(place, name, dangerous, same, length, cosine))
    return pairs


def seconds_each(prompts: list[str], rounds: int = 5) -> tuple[float, float]:
    """CPU seconds that a likeness and an embedding take a prompt, the quickest of some rounds."""
    embedder, similar = StaticEmbedder.load(), PromptSimilarity(b"calibration")
    likeness, embedding = [], []
    for _ in range(rounds):
        started = time.thread_time()
        for prompt in prompts:
            similar.likeness(prompt)
        likeness.append(time.thread_time() - started)
        started = time.thread_time()
        for prompt in prompts:
            embedder.embed([prompt])
        embedding.append(time.thread_time() - started)
    return min(likeness) / len(prompts), min(embedding) / len(prompts)


def share(values: list[bool]) -> str:
    """Count and percentage; with the upper 95% bound where nothing was found (rule of three)."""
    if not values:
        return "-"
    if not any(values):
        return f"0 of {len(values)} (below {300 / len(values):.2f}%)"
    return f"{sum(values)} of {len(values)} ({100 * np.mean(values):.2f}%)"


def main() -> int:
    """Calibrate, and print; 1 if a dangerous edit passes at the chosen threshold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path, nargs="+")
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=float, default=0.995)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    prompts = [row["prompt"] for row in read_rows(options.tables)]
    drawn = rng.permutation(len(prompts))[: options.prompts]
    pairs = pairs_of([prompts[place] for place in drawn], rng)
    choosing = [p for p in pairs if p.prompt % 2 == 0]
    testing = [p for p in pairs if p.prompt % 2 == 1]
    light = np.array([p.cosine for p in choosing if not p.dangerous and p.same_wording])
    threshold = max([t for t in GRID if np.mean(light >= t) >= options.keep], default=GRID[0])

    def passes(pair: Pair) -> bool:
        return pair.same_wording and pair.comparable and pair.cosine >= threshold

    microseconds = [1e6 * each for each in seconds_each([prompts[place] for place in drawn])]
    print(f"{len(drawn)} prompts of {', '.join(t.name for t in options.tables)}, seed {options.seed}")
    print(f"chosen threshold {threshold:.2f} on {len(light)} light edits of one half; the other half:\n")
    print("| edit | | cosine 1% | median | wording alone | cosine alone | both |\n|---|---|---|---|---|---|---|")
    for kind in [*LIGHT, *HARD_LIGHT, *DANGEROUS]:
        rows = [p for p in testing if p.kind == kind]
        if rows:
            values = np.array([p.cosine for p in rows])
            print(
                f"| {kind} | {'dangerous' if rows[0].dangerous else 'light'} | {np.quantile(values, 0.01):.3f} "
                f"| {np.median(values):.3f} | {share([p.same_wording for p in rows])} "
                f"| {share([p.cosine >= threshold for p in rows])} | {share([passes(p) for p in rows])} |"
            )
    wrong = [passes(p) for p in testing if p.dangerous]
    chars = np.mean([len(prompts[place]) for place in drawn])
    likeness, embedding = microseconds
    print(f"\nCPU a prompt (mean {chars:.0f} characters): likeness {likeness:.0f} us, embedding {embedding:.0f} us")
    print(f"light edits that hit: {share([passes(p) for p in testing if p.kind in LIGHT])}")
    print(f"dangerous edits that hit: {share(wrong)}")
    return int(any(wrong))


if __name__ == "__main__":
    sys.exit(main())
