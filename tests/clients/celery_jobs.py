"""Celery with the server as broker and as keeper of results: a task, a chain, a chord."""

import sys

import celery
from celery import Celery, chain, chord
from celery.contrib.testing.worker import start_worker

url = f"redis://127.0.0.1:{sys.argv[1]}/1"
app = Celery("jobs", broker=url, backend=url)
app.conf.broker_connection_retry_on_startup = True
app.conf.result_expires = 60


@app.task
def add(a, b):
    return a + b


@app.task
def total(numbers):
    return sum(numbers)


with start_worker(app, pool="threads", concurrency=2, perform_ping_check=False, loglevel="ERROR"):
    assert add.delay(2, 3).get(timeout=30) == 5
    assert chain(add.s(1, 2), add.s(10))().get(timeout=30) == 13
    assert chord((add.s(n, n) for n in range(10)), total.s())().get(timeout=30) == 90
    results = [add.apply_async((n, 1), countdown=0.1) for n in range(20)]
    assert [result.get(timeout=30) for result in results] == list(range(1, 21))
print(f"celery {celery.__version__}: fine")
