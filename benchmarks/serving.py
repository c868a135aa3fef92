"""A server under load, killed, and with and without batching; every number that docs/serving.md names.

    python benchmarks/serving.py load --clients 64 --seconds 180
    python benchmarks/serving.py kill
    python benchmarks/serving.py batching
    python benchmarks/serving.py batching --steps 30

Everything runs on this machine: the server as `consistentid serve`, the clients as threads of this process.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx

from consistentid.generation.settings import GenerationSettings
from consistentid.web.client import Client, ServerRefused
from consistentid.web.jobs import JobState

PHOTO = Path(__file__).parents[1] / "examples" / "photos" / "synthetic-woman.jpg"
PROMPT = "a portrait photo of a smiling woman, blue background"


class Server:
    """`consistentid serve` in a process of its own."""

    def __init__(self, store: Path, **settings: object) -> None:
        self.store, self.settings = store, settings
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        variables = {f"CONSISTENTID_SERVE_{name.upper()}": str(value) for name, value in self.settings.items()}
        command = [sys.executable, "-m", "consistentid", "serve", "--port", str(self.port), "--store", str(self.store)]
        self.process = subprocess.Popen(command, env={**os.environ, **variables}, stdout=subprocess.DEVNULL)
        for _ in range(600):
            try:
                if httpx.get(f"{self.url}/v1/ready").is_success:
                    return
            except httpx.HTTPError:
                time.sleep(0.1)
        raise SystemExit("the server did not start")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(120)

    @property
    def memory(self) -> int:
        """Resident bytes."""
        assert self.process is not None
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def serving(**settings: object) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "store", rate="1000000/minute", **settings)
        server.start()
        try:
            yield server
        finally:
            if server.process is not None and server.process.poll() is None:
                server.stop()


def load(clients: int, seconds: float, steps: int) -> None:
    """Clients that submit, wait and fetch, as fast as they are let; this process asks for health meanwhile."""
    with serving(max_queue=32) as server, httpx.Client(base_url=server.url, timeout=60) as http:
        results: multiprocessing.Queue[tuple[Counter[str], list[str]]] = multiprocessing.Queue()
        crowd = multiprocessing.Process(target=crowded, args=(server.url, clients, seconds, steps, results))
        crowd.start()
        health, memory = [], []
        while crowd.is_alive() and results.empty():
            begun = time.perf_counter()
            http.get("/v1/health")
            health.append(time.perf_counter() - begun)
            memory.append(server.memory)
            time.sleep(0.2)
        counts, ids = results.get()
        crowd.join()
        known = len(http.get("/v1/portraits?limit=1000").json())
    tenth = max(1, len(memory) // 10)
    print(f"{clients} clients, {seconds:.0f} s: {dict(sorted(counts.items()))}")
    print(f"lost {len(ids) - counts['succeeded']}, duplicate {len(ids) - len(set(ids))}, in the store {known}")
    print(f"health: median {1000 * statistics.median(health):.0f} ms, p95 {1000 * quantile(health, 0.95):.0f} ms")
    print(f"memory: {max(memory[:tenth]) >> 20} MB in the first tenth, {max(memory[-tenth:]) >> 20} MB in the last")


def crowded(
    url: str, clients: int, seconds: float, steps: int, results: "multiprocessing.Queue[tuple[Counter[str], list[str]]]"
) -> None:
    """Run the clients; in a process of its own, so that they do not slow the one that asks for health."""
    counts, ids, lock = Counter[str](), list[str](), threading.Lock()
    end, photo = time.monotonic() + seconds, PHOTO.read_bytes()

    def client(number: int) -> None:
        dice, request = random.Random(number), json.dumps({"prompt": PROMPT, "steps": steps, "seed": number})
        with httpx.Client(base_url=url, timeout=600) as http:
            while time.monotonic() < end:
                answer = http.post("/v1/portraits", data={"request": request}, files={"photo": photo})
                with lock:
                    counts[f"submit {answer.status_code}"] += 1
                if answer.status_code == 429:
                    time.sleep(float(answer.headers["Retry-After"]) * (0.5 + dice.random()))
                    continue
                job = answer.json()["id"]
                with lock:
                    ids.append(job)
                while (status := http.get(f"/v1/portraits/{job}").json())["state"] in {"queued", "running"}:
                    time.sleep(0.5)
                fetched = [http.get(one["url"]).status_code for one in status["portraits"]]
                with lock:
                    counts[status["state"]] += 1
                    counts["images"] += fetched.count(200)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put((counts, ids))


def kill(jobs: int, steps: int) -> None:
    """`kill -9` while jobs run and wait; after the restart, each must end and have whole files."""
    with serving(lease=3, batch_size=2) as server, Client(server.url) as client:
        settings = GenerationSettings(steps=steps)
        ids = [client.submit(PHOTO, PROMPT, settings=settings).id for _ in range(jobs)]
        next(event for event in client.follow(ids[0]) if event.step > 1)
        server.stop(signal.SIGKILL)
        parts = list(server.store.rglob("*.part"))
        server.start()
        ended = [client.wait(id_) for id_ in ids]
        broken = [one.id for one in ended if one.state is JobState.SUCCEEDED and not whole(client, one.id)]
        left = list(server.store.rglob("*.part"))
        print(f"{jobs} jobs, killed with -9: {dict(Counter(one.state.value for one in ended))}, {len(broken)} broken")
        print(f"unfinished files: {len(parts)} after the kill, {len(left)} now")


def whole(client: Client, id_: str) -> bool:
    from io import BytesIO

    from PIL import Image

    try:
        for content in client.images(client.status(id_)):
            Image.open(BytesIO(content or b"")).load()
    except (OSError, ServerRefused):
        return False
    return True


def batching(requests: int, steps: int, repeats: int) -> None:
    """Concurrent requests with equal settings, in runs of up to 8 images and one by one; alternately, so that other
    work on the machine meets both."""
    seconds: dict[int, list[float]] = {1: [], 8: []}
    with serving(batch_size=1, batch_delay=0.1) as single, serving(batch_size=8, batch_delay=0.1) as batched:
        for server in (single, batched):
            rush(server, requests=1, steps=steps)  # the photo is analysed, the libraries are warm
        for _ in range(repeats):
            for size, server in ((1, single), (8, batched)):
                seconds[size].append(rush(server, requests=requests, steps=steps))
    one, eight = (statistics.median(seconds[size]) for size in (1, 8))
    print(f"{requests} requests of {steps} steps: {one:.1f} s one by one, {eight:.1f} s in runs of up to 8")
    print(f"{requests / one:.2f} and {requests / eight:.2f} portraits a second: {one / eight:.2f} x")


def rush(server: Server, *, requests: int, steps: int) -> float:
    def client(number: int) -> None:
        with Client(server.url, timeout=600) as one:
            job = one.submit(PHOTO, PROMPT, settings=GenerationSettings(steps=steps, seed=number))
            assert one.wait(job.id).state is JobState.SUCCEEDED

    threads = [threading.Thread(target=client, args=(number,)) for number in range(requests)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begun


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("load", "kill", "batching"))
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=1)
    asked = parser.parse_args()
    if asked.what == "load":
        load(asked.clients, asked.seconds, asked.steps)
    elif asked.what == "kill":
        kill(asked.jobs, asked.steps)
    else:
        batching(asked.requests, asked.steps, asked.repeats)
