"""redis-py against the server on the given port: what an application does, over RESP2 and RESP3. The second port is a cluster."""

import sys
import threading
import time

import redis
from redis.cluster import RedisCluster


def basics(r):
    r.flushall()
    assert r.set("a", "1", ex=100) and r.incr("a") == 2 and r.ttl("a") == 100
    assert r.mset({"x": 1, "y": 2}) and r.mget("x", "y", "z") == ["1", "2", None]
    r.hset("h", mapping={"f": "v", "n": 1})
    assert r.hgetall("h") == {"f": "v", "n": "1"} and r.hincrbyfloat("h", "n", 0.5) == 1.5
    r.zadd("z", {"a": 1, "b": 2.5})
    assert r.zrange("z", 0, -1, withscores=True) in ([("a", 1.0), ("b", 2.5)], [["a", 1.0], ["b", 2.5]])
    r.geoadd("g", (13.361389, 38.115556, "Palermo", 15.087269, 37.502669, "Catania"))
    assert r.geosearch("g", longitude=15, latitude=37, radius=200, unit="km", sort="ASC") == ["Catania", "Palermo"]
    r.sadd("s", *range(500))
    assert sum(1 for _ in r.sscan_iter("s")) == 500 and r.scard("s") == 500
    for n in range(1000):
        r.set(f"k:{n}", n)
    assert len(list(r.scan_iter("k:*", count=50))) == 1000
    assert r.object("encoding", "a") == "int" and r.memory_usage("h") > 0
    assert r.client_setname("me") and r.client_getname() == "me"
    assert any(c["name"] == "me" for c in r.client_list())
    assert r.info("server")["redis_version"] and r.config_get("maxmemory") == {"maxmemory": "0"}
    assert r.command_count() > 200 and r.command_getkeys("MSET", "a", 1, "b", 2) == ["a", "b"]
    assert r.dbsize() > 1000 and r.lastsave() and r.time()
    try:
        r.lpush("a", 1)
        raise AssertionError("a list command on a string")
    except redis.ResponseError as error:
        assert str(error).startswith("WRONGTYPE"), error


def transactions(r):
    r.set("balance", 10)
    with r.pipeline() as pipe:
        while True:
            try:
                pipe.watch("balance")
                now = int(pipe.get("balance"))
                if now == 10:
                    r.set("balance", 11)
                pipe.multi()
                pipe.set("balance", now + 5)
                pipe.execute()
                break
            except redis.WatchError:
                continue
    assert r.get("balance") == "16"
    # A watched key that changed has nothing to say about single commands.
    with r.pipeline() as pipe:
        pipe.watch("balance")
        r.set("balance", 1)
        assert pipe.mget("balance", "x", "y")[0] == "1"
        pipe.unwatch()
    pipe = r.pipeline(transaction=False)
    for n in range(2000):
        pipe.incr(f"p:{n % 7}")
    assert len(pipe.execute()) == 2000
    script = r.register_script("return {KEYS[1], ARGV[1], redis.call('incrby', KEYS[1], ARGV[1])}")
    assert script(keys=["script:n"], args=[4]) == ["script:n", "4", 4]
    r.function_load("#!lua name=l\nredis.register_function('twice', function(k, a) return 2 * a[1] end)", replace=True)
    assert r.fcall("twice", 0, 21) == 42
    with r.lock("lock", timeout=5):
        assert not r.lock("lock", blocking=False).acquire()


def streams(r):
    r.xgroup_create("st", "g", mkstream=True)
    ids = [r.xadd("st", {"n": n}) for n in range(10)]
    got = r.xreadgroup("g", "c", {"st": ">"}, count=4)
    first = got["st"][0] if isinstance(got, dict) else got[0][1]
    assert len(first) == 4
    assert r.xack("st", "g", ids[0]) == 1 and r.xpending("st", "g")["pending"] == 3
    assert len(r.xautoclaim("st", "g", "d", 0)[1]) == 3
    assert r.xinfo_stream("st")["length"] == 10 and r.xinfo_groups("st")[0]["name"] == "g"


def waits(make):
    r = make()
    threading.Timer(0.1, lambda: make().rpush("queue", "job")).start()
    assert tuple(r.blpop("queue", timeout=5)) == ("queue", "job")
    assert r.blpop("queue", timeout=0.05) is None
    heard = []
    listener = make().pubsub()
    listener.subscribe(**{"news": lambda message: heard.append(message["data"])})
    listener.psubscribe(**{"n*": lambda message: heard.append(message["data"])})
    thread = listener.run_in_thread(sleep_time=0.01)
    deadline = time.time() + 10
    while r.pubsub_numsub("news")[0][1] == 0 or r.pubsub_numpat() == 0:
        assert time.time() < deadline
        time.sleep(0.01)
    assert r.publish("news", "hello") == 2
    while len(heard) < 2:
        assert time.time() < deadline, heard
        time.sleep(0.01)
    thread.stop()
    thread.join()


def tracking(port):
    """What client-side caching is made of: the server tells what has changed of what was read."""
    told = []
    reader = redis.Redis(port=port, protocol=3, decode_responses=True, single_connection_client=True)
    reader.connection._parser.set_invalidation_push_handler(lambda message, **_: told.append(message))
    other = redis.Redis(port=port, decode_responses=True)
    other.set("cached", "old")
    assert reader.execute_command("CLIENT", "TRACKING", "ON") == "OK"
    assert reader.get("cached") == "old"
    other.set("cached", "new")
    deadline = time.time() + 10
    while not told:
        reader.ping()
        assert time.time() < deadline, "no invalidation"
    assert reader.get("cached") == "new"


def cluster(port):
    c = RedisCluster(host="127.0.0.1", port=port, decode_responses=True)
    for n in range(300):
        c.set(f"key:{n}", n)
    assert [c.get(f"key:{n}") for n in range(300)] == [str(n) for n in range(300)]
    assert c.mget_nonatomic("key:1", "key:2") == ["1", "2"]
    assert len(list(c.scan_iter("key:*"))) == 300 and c.dbsize() == 300
    pipe = c.pipeline()
    for n in range(50):
        pipe.incr(f"key:{n}")
    assert pipe.execute() == [n + 1 for n in range(50)]
    assert c.mset_nonatomic({"{t}a": 1, "{t}b": 2}) and c.mget("{t}a", "{t}b") == ["1", "2"]
    try:
        c.execute_command("MGET", "a", "b", target_nodes=c.get_default_node())
        raise AssertionError("keys of two slots")
    except redis.ResponseError as error:
        assert "CROSSSLOT" in str(error) or "same slot" in str(error), error


def main():
    port, cluster_port = map(int, sys.argv[1:3])
    for protocol in (2, 3):
        make = lambda: redis.Redis(port=port, protocol=protocol, decode_responses=True)
        r = make()
        basics(r)
        transactions(r)
        streams(r)
        waits(make)
        print(f"redis-py {redis.__version__}, RESP{protocol}: fine")
    tracking(port)
    print("redis-py, tracking over RESP3: fine")
    cluster(cluster_port)
    print("redis-py, RedisCluster: fine")


main()
