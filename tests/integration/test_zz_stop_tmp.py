import time, signal
from tests.integration.test_event_streams import *
def test_stop(server, client):
    for n in (0,1):
        pass
    s = client.watch(client.submit()["id"])
    s.until("queued")
    t=time.monotonic()
    server.process.send(signal.SIGTERM)
    try:
        for e in s.events(): print(e.kind)
    except Exception as ex: print("ex", ex)
    print("stream ended after", time.monotonic()-t)
    while server.process.alive and time.monotonic()-t<60: time.sleep(0.1)
    print("process ended after", time.monotonic()-t, server.process.last_words())
    s.close(); client.streams.clear()
