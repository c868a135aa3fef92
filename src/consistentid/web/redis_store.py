"""Jobs in Redis or Valkey, which servers on many machines may share."""

import time
from typing import Any

from consistentid.errors import InvalidSettings
from consistentid.web.errors import TooManyRequests
from consistentid.web.jobs import MAX_ATTEMPTS, JobState, PortraitJob
from consistentid.web.sqlite_store import FULL_RETRY, LOST

# Every key is below one hash tag, so that a cluster keeps them together. `job:ID` is a hash with the document and what
# changes; `queued` and `running` are sorted by time of submission and end of lease, `ended` and `owner:NAME` likewise.
_PREFIX = "{consistentid}:"
_ADD = """
local known = ARGV[4] ~= '' and redis.call('GET', KEYS[3])
if known then return known end
if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[2]) then return redis.error_reply('FULL') end
for i = 5, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
redis.call('ZADD', KEYS[4], ARGV[3], ARGV[1])
if ARGV[4] ~= '' then redis.call('SET', KEYS[3], ARGV[1]) end
return ARGV[1]
"""
_CLAIM = """
local taken, images, key = {}, 0, nil
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local job = redis.call('HMGET', ARGV[5] .. id, 'batch_key', 'num_images')
  if key == nil then key = job[1] end
  if job[1] == key then
    if #taken > 0 and images + tonumber(job[2]) > tonumber(ARGV[2]) then break end
    images = images + tonumber(job[2])
    table.insert(taken, id)
    redis.call('ZREM', KEYS[1], id)
    redis.call('ZADD', KEYS[2], ARGV[3], id)
    redis.call('HSET', ARGV[5] .. id, 'state', 'running', 'worker', ARGV[1], 'updated', ARGV[4])
    redis.call('HINCRBY', ARGV[5] .. id, 'attempts', 1)
    if images >= tonumber(ARGV[2]) then break end
  end
end
return taken
"""
_HELD = """
if redis.call('HGET', KEYS[1], 'worker') ~= ARGV[1] then return 0 end
for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
return 1
"""
_END = """
local state = redis.call('HGET', KEYS[1], 'state')
if state ~= 'queued' and state ~= 'running' then return 0 end
if ARGV[2] ~= '' and redis.call('HGET', KEYS[1], 'worker') ~= ARGV[2] then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZADD', KEYS[4], ARGV[3], ARGV[1])
redis.call('HDEL', KEYS[1], 'worker', 'preview')
for i = 4, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
return 1
"""
_BACK = """
if redis.call('HGET', KEYS[1], 'state') ~= 'running' then return 0 end
if ARGV[2] ~= '' and redis.call('HGET', KEYS[1], 'worker') ~= ARGV[2] then return 0 end
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZADD', KEYS[2], redis.call('HGET', KEYS[1], 'created'), ARGV[1])
redis.call('HDEL', KEYS[1], 'worker', 'preview')
redis.call('HSET', KEYS[1], 'state', 'queued', 'step', 0, 'steps', 0)
redis.call('HINCRBY', KEYS[1], 'attempts', ARGV[3])
return 1
"""


class RedisJobStore:
    """A `JobStore` in Redis; what must be atomic is a script there.

    Args:
        url: `redis://host:port/database`.

    Raises:
        InvalidSettings: the client is not installed, or the server does not answer.
    """

    def __init__(self, url: str) -> None:
        try:
            import redis
        except ModuleNotFoundError:
            raise InvalidSettings(
                "a queue in Redis needs redis, which is not installed: pip install 'consistentid[serve-scale]'"
            ) from None
        self._error = redis.ResponseError
        try:
            self._redis: Any = redis.Redis.from_url(url)
            self._redis.ping()
        except (redis.RedisError, ValueError) as error:
            raise InvalidSettings(f"the queue's Redis does not answer ({error}); check its address") from None
        scripts = {"add": _ADD, "claim": _CLAIM, "held": _HELD, "end": _END, "back": _BACK}
        self._run = {name: self._redis.register_script(text) for name, text in scripts.items()}

    def add(self, job: PortraitJob, *, max_queue: int) -> PortraitJob:
        """See `JobStore`."""
        values = {
            "document": job.model_dump_json(), "state": job.state.value, "created": job.created, "updated": job.updated,
            "batch_key": job.request.batch_key, "num_images": job.request.num_images,
            "attempts": 0, "step": 0, "steps": 0,
        }  # fmt: skip
        known = self._known(job.owner, job.idempotency_key or "")
        keys = [self._job(job.id), _QUEUED, known, self._owned(job.owner)]
        flat = [part for pair in values.items() for part in pair]
        try:
            arguments = [job.id, max_queue, job.created, job.idempotency_key or "", *flat]
            id_ = self._run["add"](keys, arguments).decode()
        except self._error as error:
            if "FULL" not in str(error):
                raise
            raise TooManyRequests("the queue is full; try again later", retry_after=FULL_RETRY) from None
        return job if id_ == job.id else self.get(id_) or job

    def get(self, id_: str) -> PortraitJob | None:
        """See `JobStore`."""
        found = self._redis.hmget(self._job(id_), "document", "state", "updated", "attempts", "step", "steps")
        if found[0] is None:
            return None
        document, state, updated, attempts, step, steps = found
        return PortraitJob.model_validate_json(document).model_copy(
            update={
                "state": JobState(state.decode()),
                "updated": float(updated),
                "attempts": int(attempts),
                "step": int(step),
                "steps": int(steps),
            }
        )

    def find(self, *, owner: str, idempotency_key: str) -> PortraitJob | None:
        """See `JobStore`."""
        id_ = self._redis.get(self._known(owner, idempotency_key))
        return None if id_ is None else self.get(id_.decode())

    def preview(self, id_: str) -> bytes | None:
        """See `JobStore`."""
        found: bytes | None = self._redis.hget(self._job(id_), "preview")
        return found

    def position(self, job: PortraitJob) -> int:
        """See `JobStore`."""
        return int(self._redis.zrank(_QUEUED, job.id) or 0) if job.state is JobState.QUEUED else 0

    def queued(self) -> int:
        """See `JobStore`."""
        return int(self._redis.zcard(_QUEUED))

    def of_owner(self, owner: str, *, limit: int | None = None) -> list[PortraitJob]:
        """See `JobStore`."""
        ids = self._redis.zrevrange(self._owned(owner), 0, -1 if limit is None else limit - 1)
        return [job for job in (self.get(id_.decode()) for id_ in ids) if job is not None]

    def claim(self, worker: str, *, max_images: int, lease: float) -> list[PortraitJob]:
        """See `JobStore`."""
        now = time.time()
        taken = self._run["claim"]([_QUEUED, _RUNNING], [worker, max_images, now + lease, now, self._job("")])
        return [job for job in (self.get(id_.decode()) for id_ in taken) if job is not None]

    def renew(self, worker: str, *, lease: float) -> None:
        """See `JobStore`."""
        held = {id_: time.time() + lease for id_ in self._held_by(worker)}
        if held:
            self._redis.zadd(_RUNNING, held, xx=True)

    def progress(self, id_: str, worker: str, *, step: int, steps: int, preview: bytes | None) -> bool:
        """See `JobStore`."""
        values: list[Any] = ["step", step, "steps", steps, *([] if preview is None else ["preview", preview])]
        return bool(self._run["held"]([self._job(id_)], [worker, *values]))

    def finish(self, job: PortraitJob, worker: str) -> bool:
        """See `JobStore`."""
        return self._ended(job, worker)

    def release(self, worker: str) -> None:
        """See `JobStore`."""
        for id_ in self._held_by(worker):
            self._run["back"]([self._job(id_), _QUEUED, _RUNNING], [id_, worker, -1])

    def cancel(self, id_: str) -> bool:
        """See `JobStore`."""
        job = self.get(id_)
        return job is not None and self._ended(job.model_copy(update={"state": JobState.CANCELLED}), "")

    def requeue_lost(self) -> tuple[int, list[str]]:
        """See `JobStore`."""
        requeued, failed = 0, []
        for id_ in (one.decode() for one in self._redis.zrangebyscore(_RUNNING, 0, time.time())):
            job = self.get(id_)
            if job is None:
                self._redis.zrem(_RUNNING, id_)
            elif job.attempts >= MAX_ATTEMPTS:
                lost = {"state": JobState.FAILED, "error": LOST.format(MAX_ATTEMPTS)}
                failed += [id_] if self._ended(job.model_copy(update=lost), "") else []
            else:
                requeued += int(self._run["back"]([self._job(id_), _QUEUED, _RUNNING], [id_, "", 0]))
        return requeued, failed

    def delete(self, id_: str) -> None:
        """See `JobStore`."""
        job = self.get(id_)
        with self._redis.pipeline() as all_at_once:
            for name in (_QUEUED, _RUNNING, _ENDED):
                all_at_once.zrem(name, id_)
            if job is not None:
                all_at_once.zrem(self._owned(job.owner), id_)
                if job.idempotency_key:
                    all_at_once.delete(self._known(job.owner, job.idempotency_key))
            all_at_once.delete(self._job(id_))
            all_at_once.execute()

    def expired(self, *, before: float) -> list[str]:
        """See `JobStore`."""
        return [id_.decode() for id_ in self._redis.zrangebyscore(_ENDED, 0, f"({before}")]

    def close(self) -> None:
        """See `JobStore`."""
        self._redis.close()

    def _ended(self, job: PortraitJob, worker: str) -> bool:
        now = time.time()
        values = {
            "state": job.state.value, "updated": now, "step": job.step, "steps": job.steps,
            "document": job.model_dump_json(),
        }  # fmt: skip
        flat = [part for pair in values.items() for part in pair]
        keys = [self._job(job.id), _QUEUED, _RUNNING, _ENDED]
        return bool(self._run["end"](keys, [job.id, worker, now, *flat]))

    def _held_by(self, worker: str) -> list[str]:
        running = [id_.decode() for id_ in self._redis.zrange(_RUNNING, 0, -1)]
        return [id_ for id_ in running if self._redis.hget(self._job(id_), "worker") == worker.encode()]

    def _job(self, id_: str) -> str:
        return f"{_PREFIX}job:{id_}"

    def _owned(self, owner: str) -> str:
        return f"{_PREFIX}owner:{owner}"

    def _known(self, owner: str, key: str) -> str:
        return f"{_PREFIX}key:{owner}:{key}"


_QUEUED, _RUNNING, _ENDED = f"{_PREFIX}queued", f"{_PREFIX}running", f"{_PREFIX}ended"
