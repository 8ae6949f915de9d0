"""Asks BentoML itself what it makes of deployments: JSON on stdin, a list of answers on stdout.

Runs in a Python that has BentoML. Each answer is {"services": ...} in BentoML's own words after its own
checks, or {"error": ...}; `refused` names the services whose `config_overrides` BentoML will not start with.
"""

import json
import sys

from bentoml._internal.cloud.deployment import DeploymentAPI
from bentoml._internal.cloud.schemas.schemasv2 import CreateDeploymentSchema
from bentoml._internal.configuration.containers import BentoMLConfiguration
from bentoml._internal.utils.cattr import bentoml_cattr


def answer(deployment):
    """What BentoML makes of one deployment, or what it says against it."""
    services = {}
    refused = []
    try:
        made = bentoml_cattr.structure(deployment, CreateDeploymentSchema)
        for name, service in (made.services or {}).items():
            scaling = DeploymentAPI._fix_scaling(service.scaling)
            services[name] = {
                "instance_type": service.instance_type,
                "strategy": service.deployment_strategy,
                "cold_start_timeout": service.cold_start_timeout,
                "min_replicas": scaling.min_replicas,
                "max_replicas": scaling.max_replicas,
                "envs": {env.name: env.value for env in [*(made.envs or []), *(service.envs or [])]},
                "secrets": made.secrets,
            }
    except Exception as error:  # noqa: BLE001 - whatever it says is the answer
        return {"error": f"{type(error).__name__}: {error}"}
    for name, service in deployment.get("services", {}).items():
        try:
            found = effective(name, (service or {}).get("config_overrides") or {})
            services[name]["traffic"] = found["traffic"]
        except Exception as error:  # noqa: BLE001 - whatever it says is the answer
            refused.append(f"{name}: {type(error).__name__}: {error}")
    return {"services": services, "refused": refused}


def effective(name, overrides):
    """The configuration that a service starts with, of a decorator that says nothing."""
    whole = BentoMLConfiguration(
        override_defaults={"services": {name: {}}},
        override_config_json={"services": {name: overrides}},
        use_version=2,
    )
    services = whole.config["services"]
    return services.get(name, services)  # one of which nothing is said has what holds for all


if __name__ == "__main__":
    json.dump([answer(each) for each in json.load(sys.stdin)], sys.stdout)
