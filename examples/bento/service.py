"""Three services of one text application: clean the text, judge it, put the answer together.

A real BentoML project: `bentoml serve service:Review` runs it too. The judge is a small word list, so that it
needs no model to be downloaded, and takes some milliseconds of a core, so that it has something to scale for.
"""

from __future__ import annotations

import os
import re
import time

import bentoml

KIND = {"good", "great", "fast", "friendly", "clean", "love"}
UNKIND = {"bad", "slow", "rude", "dirty", "broken", "hate"}


@bentoml.service(
    resources={"cpu": "200m"},
    traffic={"timeout": 10},
    envs=[{"name": "LANGUAGE", "value": "en"}],
)
class Clean:
    """Words of a text, in lower case."""

    @bentoml.api
    def words(self, text: str) -> list[str]:
        return re.findall(r"[a-z']+", text.lower())


@bentoml.service(
    resources={"cpu": "500m"},
    threads=2,
    traffic={"timeout": 20, "concurrency": 2, "external_queue": True},
    envs=[{"name": "WORK_MS", "value": "20"}],
)
class Judge:
    """How a text sounds, from -1 to 1."""

    def __init__(self) -> None:
        self.work = float(os.environ["WORK_MS"]) / 1000

    @bentoml.api
    def score(self, words: list[str]) -> float:
        until = time.thread_time() + self.work
        while time.thread_time() < until:
            sum(range(1000))
        hits = [1 if word in KIND else -1 for word in words if word in KIND | UNKIND]
        return sum(hits) / len(hits) if hits else 0.0


@bentoml.service(traffic={"timeout": 30})
class Review:
    """The entry: what comes of a text."""

    clean = bentoml.depends(Clean)
    judge = bentoml.depends(Judge)

    @bentoml.api
    async def review(self, text: str) -> dict:
        words = await self.clean.to_async.words(text)
        score = await self.judge.to_async.score(words)
        return {"words": len(words), "score": score, "verdict": "kind" if score > 0 else "not kind"}
