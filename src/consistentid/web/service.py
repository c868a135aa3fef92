"""Queue and workers together: what a front door starts, uses and stops."""

import logging
import secrets
import threading
import time
from collections.abc import Sequence

from consistentid.faces.analysis import FaceAnalysis, FaceChoice
from consistentid.generation.generator import PortraitGenerator
from consistentid.web.config import ServerConfig
from consistentid.web.errors import NotServing, TooManyRequests
from consistentid.web.metrics import Metrics
from consistentid.web.queue import JobQueue
from consistentid.web.uploads import checked_photo
from consistentid.web.worker import Worker

logger = logging.getLogger(__name__)

_WAITING = 8  # analyses that wait for each other
_REMEMBER = 600  # seconds that analyses of photos are remembered at most, also where other servers delete the jobs


class PortraitService:
    """A queue with one worker for each device.

    Args:
        config: of queue and workers.
        generators: one for each worker.
        queue: by default the one that the configuration describes.
    """

    def __init__(
        self, config: ServerConfig, generators: Sequence[PortraitGenerator], *, queue: JobQueue | None = None
    ) -> None:
        self.config = config
        self.queue = queue or JobQueue.open(config)
        self.queue.generator = generators[0]
        self.metrics = Metrics()
        self.metrics.watch_queue(self.queue.jobs.queued)
        self.workers = [
            Worker(self.queue, generator, name=secrets.token_hex(8), metrics=self.metrics) for generator in generators
        ]
        self._generators = tuple(generators)
        self.queue.on_deletion(lambda _: self.forget())
        self._stopped = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep, name="sweeper", daemon=True)
        self._waiting = threading.Semaphore(_WAITING)
        self._analysing = threading.Lock()

    @classmethod
    def open(cls, config: ServerConfig) -> "PortraitService":
        """A service with the models of a configuration, one on each device.

        Raises:
            WeightsNotFound: a model cannot be loaded.
            InvalidSettings: the store cannot be used.
        """
        generators = [
            PortraitGenerator.from_pretrained(
                config.model,
                adapter=config.adapter,
                device=device,
                dtype=config.dtype,
                offline=config.offline,
                cache=False,  # no features of faces on the disk
            )
            for device in config.devices
        ]
        return cls(config, generators)

    @property
    def generator(self) -> PortraitGenerator:
        """The first worker's."""
        return self._generators[0]

    def start(self) -> None:
        """Begin to work."""
        for worker in self.workers:
            worker.start()
        self._sweeper.start()

    @property
    def is_ready(self) -> bool:
        """Whether jobs are accepted and worked on."""
        return self.queue.is_open and all(worker.is_alive for worker in self.workers)

    def drain(self) -> None:
        """Accept nothing more; what runs is finished, what waits stays queued for the next start."""
        self.queue.is_open = False
        for worker in self.workers:
            worker.stop()

    def close(self) -> None:
        """Drain, and after `config.drain` seconds queue what still runs again."""
        self.drain()
        self._stopped.set()
        end = time.monotonic() + self.config.drain
        ended = [worker.join(max(0.0, end - time.monotonic())) for worker in self.workers]
        if not all(ended):
            for worker in self.workers:
                worker.abort()
            for worker in self.workers:
                worker.join(self.config.lease)
        if self._sweeper.is_alive():
            self._sweeper.join()
        self.queue.jobs.close()

    def analyse(self, photo: bytes, *, face: FaceChoice = "largest") -> FaceAnalysis:
        """What is found in a photo; nothing of it is written anywhere.

        Raises:
            TooManyRequests: many others wait already.
            UnreadableImage, NoFaceFound, FaceNotSelected: the photo cannot be used.
            InvalidSettings: the model has no face analyzer.
        """
        if not self.queue.is_open:
            raise NotServing("the server is being stopped; try again later")
        image = checked_photo(photo, max_pixels=self.config.max_pixels)
        if not self._waiting.acquire(blocking=False):
            raise TooManyRequests(f"{_WAITING} analyses are waiting already; try again later", retry_after=5)
        try:
            with self._analysing:
                return self.generator.analysed(image, face=face).analysis
        finally:
            self._waiting.release()

    def faces(self, analysis: FaceAnalysis) -> list[tuple[float, float, float, float]]:
        """Boxes of every face in an analysed photo, the largest first."""
        analyzer = self.generator.analyzer
        if analysis.faces_found == 1 or analyzer is None:
            return [analysis.box]
        with self._analysing:
            return [face.box for face in analyzer.detector.detect(analysis.photo)]

    def forget(self) -> None:
        """Drop what is remembered of photos, on every device."""
        for generator in self._generators:
            generator.forget()

    def _sweep(self) -> None:
        forgotten = time.monotonic()
        while True:
            try:
                self.queue.sweep()
                if time.monotonic() - forgotten > _REMEMBER:
                    self.forget()
                    forgotten = time.monotonic()
            except Exception:  # tried again soon
                logger.exception("the store could not be swept")
            if self._stopped.wait(min(10.0, self.config.lease / 3)):
                return
