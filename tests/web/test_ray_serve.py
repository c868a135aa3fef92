"""Two replicas of the app on one machine, which share queue and files."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from consistentid.generation.settings import GenerationSettings
from consistentid.web.client import Client
from consistentid.web.jobs import JobState

pytestmark = [pytest.mark.slow, pytest.mark.enable_socket]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    os.environ["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"] = "100"  # read when it is imported
    ray, serve = pytest.importorskip("ray"), pytest.importorskip("ray.serve")
    from consistentid.web.ray_serve import PortraitDeployment

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100_000_000)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    values = {"store": str(tmp_path_factory.mktemp("ray")), "batch_size": 1, "lease": 10}
    replicas = PortraitDeployment.options(num_replicas=2, ray_actor_options={"num_cpus": 0.5}, max_ongoing_requests=64)
    serve.run(replicas.bind(values), name="consistentid")
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()
    ray.shutdown()


def test_jobs_of_one_replica_are_seen_and_made_by_both(url: str, photo: bytes) -> None:
    from ray import serve

    [deployment] = serve.status().applications["consistentid"].deployments.values()
    assert deployment.replica_states["RUNNING"] == 2
    with Client(url, timeout=120) as client:
        settings = GenerationSettings(steps=3, scheduler="ddim")
        jobs = [client.submit(photo, "a person", settings=settings, idempotency_key=str(n)) for n in range(6)]
        assert client.submit(photo, "a person", settings=settings, idempotency_key="0").id == jobs[0].id
        assert list(client.follow(jobs[-1].id))[-1].state is JobState.SUCCEEDED
        assert {client.wait(job.id).state for job in jobs} == {JobState.SUCCEEDED}
        assert all(content for job in jobs for content in client.images(client.status(job.id)))
        assert client.delete_all() == 6


def test_the_configuration_is_one_of_ray(root: Path) -> None:
    import yaml
    from ray.serve.schema import ServeDeploySchema

    from consistentid.web.config import ServerConfig

    values: dict[str, Any] = yaml.safe_load((root / "configs" / "serve.yaml").read_text())
    [application] = ServeDeploySchema.model_validate(values).applications
    assert application.deployments[0].autoscaling_config["max_replicas"] == 2
    assert ServerConfig(**application.args).model == "embedded"
    assert ServerConfig.load(root / "configs" / "server.yaml").batch_size == 8
