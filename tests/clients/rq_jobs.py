"""RQ: jobs are queued, one fails and is tried again, a worker does them all."""

import sys

import redis
import rq
from rq import Queue, Retry, SimpleWorker
from rq.job import JobStatus


def add(a, b):
    return a + b


def fail():
    raise ValueError("on purpose")


def main():
    connection = redis.Redis(port=int(sys.argv[1]))
    connection.flushall()
    queue = Queue("work", connection=connection)
    jobs = [queue.enqueue("rq_jobs.add", n, 1) for n in range(20)]
    after = queue.enqueue("rq_jobs.add", 100, 1, depends_on=jobs[-1])
    wrong = queue.enqueue("rq_jobs.fail", retry=Retry(max=2))
    SimpleWorker([queue], connection=connection).work(burst=True, logging_level="ERROR")
    assert [job.latest_result().return_value for job in jobs] == [n + 1 for n in range(20)]
    assert after.latest_result().return_value == 101
    assert wrong.get_status(refresh=True) == JobStatus.FAILED and wrong.id in queue.failed_job_registry
    print(f"rq {rq.VERSION}: fine")


if __name__ == "__main__":
    main()
