"""Scale on the answer of a Prometheus query: replicas = answer / target, rounded up."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import anyio.to_thread

from stoker.errors import StokerError
from stoker.model.load import Decision
from stoker.model.service import PolicySpec
from stoker.plugin.ports import PolicyInput
from stoker_policies.reading import in_words, no_opinion, parameter, replicas, target_of

PERIOD = 15.0
"""Seconds between two queries."""
MISSED = 3
"""So many periods without an answer make the last one stale."""
TIMEOUT = 8.0
"""Seconds for an answer."""


class QueryError(StokerError):
    """The query has no answer that is one number."""


class Prometheus:
    """replicas = ceil(answer / target), as an `AverageValue` of Kubernetes' autoscaler and in KEDA.

    Parameters: `url` of the server, `query` (PromQL whose answer is one number), `target` what one replica
    bears of it, `period` seconds between two queries (15). Without an answer the scale is held.
    """

    async def measure(self, rule: PolicySpec) -> float:
        """Ask the server. Raises QueryError."""
        params = dict(rule.params)
        url = f"{str(params['url']).rstrip('/')}/api/v1/query"
        body = urllib.parse.urlencode({"query": str(params["query"])}).encode()
        return await anyio.to_thread.run_sync(_ask, url, body, abandon_on_cancel=True)

    def decide(self, given: PolicyInput) -> Decision:
        """Answer for the newest reading. Pure."""
        reading, target = given.reading, target_of(given, 1.0)
        if reading is None:
            return no_opinion(given, "no answer from Prometheus yet")
        age, period = given.now - reading.at, parameter(given, "period", PERIOD)
        if age > MISSED * period + TIMEOUT:
            return no_opinion(given, f"no answer from Prometheus for {age:.0f} s")
        needed = max(0.0, reading.value) / target
        return Decision(
            target=replicas(needed),
            reason=f"query answered {reading.value:g} / target {target:g} = {in_words(needed)}, rounded up",
            code="prometheus",
            facts={"answer": reading.value, "target": target},
        )


def _ask(url: str, body: bytes) -> float:
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    request = urllib.request.Request(url, body, headers)  # http(s) only: the file is checked
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            return number(json.load(answer))
    except urllib.error.HTTPError as error:
        with error:
            raise QueryError(f"{url} answered {error.code}: {_said(error.read())}") from error
    except OSError as error:
        raise QueryError(f"{url}: {getattr(error, 'reason', None) or error}") from error
    except ValueError as error:
        raise QueryError(f"{url} does not answer as a Prometheus does: {error}") from error


def _said(text: bytes) -> str:
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return text[:200].decode(errors="replace").strip()


def number(answer: Any) -> float:
    """The one number in the JSON of an instant query. Raises QueryError if there is none or more than one,
    ValueError if that is no answer of Prometheus."""
    try:
        kind, result = answer["data"]["resultType"], answer["data"]["result"]
        if kind == "vector":
            if not result:
                raise QueryError("the query found nothing; does the metric exist? `or vector(0)` says 0 then")
            if len(result) > 1:
                raise QueryError(f"the query found {len(result)} series; make them one, as with sum(...)")
            value = float(result[0]["value"][1])
        elif kind == "scalar":
            value = float(result[1])
        else:
            raise QueryError(f"the query's answer is a {kind}; it must be one number at one time")
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{type(error).__name__} in {str(answer)[:100]}") from error
    if not math.isfinite(value):
        raise QueryError(f"the query's answer is {value}")
    return value
