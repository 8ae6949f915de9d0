"""The loop's silence, which is about one thing only."""

from __future__ import annotations

from stoker.plugin.loop import Loop


def callbacks(*, cancelled: bool, value: object) -> list[str]:
    """What the loop complains of when a future is given a value late, and an integer is called."""
    told: list[str] = []
    loop = Loop()
    loop.set_exception_handler(lambda _, context: told.append(context["message"]))
    future = loop.create_future()
    if cancelled:
        future.cancel()
    loop.call_soon(future.set_result, value)
    loop.call_soon(int, "no number")
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    return [one.split("(")[0] for one in told]


def test_a_wait_that_was_cancelled_as_it_ended_is_no_news_and_all_else_is() -> None:
    assert callbacks(cancelled=True, value=1) == ["Exception in callback int"]
    assert callbacks(cancelled=False, value=1) == ["Exception in callback int"]
