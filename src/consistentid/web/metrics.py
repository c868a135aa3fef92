"""What Prometheus is told. No label holds anything of a person."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from consistentid.web.jobs import JobState

_SECONDS = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Histogram(
            "consistentid_http_request_seconds",
            "Time until the response began, by route.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._jobs = Histogram(
            "consistentid_job_seconds",
            "Time from submission to end.",
            ("state",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._images = Counter("consistentid_images", "Images denoised.", registry=self.registry)
        self._runs = Histogram(
            "consistentid_run_images",
            "Images in a denoising run.",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=self.registry,
        )
        self._run_seconds = Histogram(
            "consistentid_run_seconds", "Time of a denoising run.", buckets=_SECONDS, registry=self.registry
        )
        self._queued = Gauge("consistentid_queued_jobs", "Jobs that wait.", registry=self.registry)

    def watch_queue(self, queued: Callable[[], float]) -> None:
        """Ask for the length of the queue whenever the metrics are read."""
        self._queued.set_function(queued)

    def request(self, method: str, route: str, *, status: int, seconds: float) -> None:
        """An HTTP request was answered."""
        self._requests.labels(method, route, str(status)).observe(seconds)

    def run(self, *, images: int, seconds: float) -> None:
        """A denoising run ended."""
        self._images.inc(images)
        self._runs.observe(images)
        self._run_seconds.observe(seconds)

    def ended(self, state: JobState, *, seconds: float) -> None:
        """A job ended."""
        self._jobs.labels(state.value).observe(seconds)

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)
