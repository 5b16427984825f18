import threading

from stream_server.server_bench_clients import send_audio
from tests.support.live_server import live_server
from tests.support.sounds import s16le, tone


def test_every_session_sends_over_and_over_until_the_server_closes() -> None:
    """In a thread here; the chunks make up a tenth of a second."""
    audio = s16le(tone(0.1))
    chunks = [audio[at : at + 640] for at in range(0, len(audio), 640)]
    with live_server() as server:
        clients = threading.Thread(target=send_audio, args=(server.url, chunks, 3, 0.001))
        clients.start()
        totals = server.service.totals
        while totals.audio < 3 * 16_000:
            clients.join(0.01)
            assert clients.is_alive()
    clients.join()
    assert totals.admitted == totals.messages["ready"] == 3
    assert totals.speech > 0
