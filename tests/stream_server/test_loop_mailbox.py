import asyncio
import threading
from collections.abc import Callable

from stream_server.loop_mailbox import LoopMailbox


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts how often another thread wakes it."""

    num_wakes = 0

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: object, **options: object
    ) -> asyncio.Handle:
        self.num_wakes += 1
        return super().call_soon_threadsafe(callback, *args)


def test_calls_of_every_thread_arrive_in_the_order_of_that_thread() -> None:
    async def scenario() -> list[tuple[int, int]]:
        mailbox, told = LoopMailbox(asyncio.get_running_loop()), list[tuple[int, int]]()
        arrived = asyncio.Event()

        def tell(thread: int, number: int) -> None:
            told.append((thread, number))
            if len(told) == 4 * 500:
                arrived.set()

        def post(thread: int) -> None:
            for number in range(500):
                mailbox.post(tell, thread, number)

        threads = [threading.Thread(target=post, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        await arrived.wait()
        for thread in threads:
            thread.join()
        return told

    told = asyncio.run(scenario())
    for thread in range(4):
        assert [number for who, number in told if who == thread] == list(range(500))


def test_many_calls_wake_the_loop_once() -> None:
    loop = CountingLoop()
    try:
        mailbox, told = LoopMailbox(loop), list[int]()
        for number in range(200):
            mailbox.post(told.append, number)
        assert loop.num_wakes == 1
        loop.run_until_complete(asyncio.sleep(0))
        assert told == list(range(200))
        mailbox.post(told.append, 200)
        assert loop.num_wakes == 2
    finally:
        loop.close()


def test_what_a_call_posts_is_not_lost_and_waits_its_turn() -> None:
    async def scenario() -> list[str]:
        loop = asyncio.get_running_loop()
        mailbox, told, done = LoopMailbox(loop), list[str](), asyncio.Event()

        def first() -> None:
            told.append("first")
            mailbox.post(told.append, "posted by the first")
            mailbox.post(done.set)

        mailbox.post(first)
        loop.call_soon(told.append, "a socket")
        await done.wait()
        return told

    assert asyncio.run(scenario()) == ["first", "a socket", "posted by the first"]


def test_a_loop_that_is_closed_hears_nothing() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    told: list[int] = []
    LoopMailbox(loop).post(told.append, 1)
    assert told == []
