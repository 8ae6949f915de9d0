"""Connections to workers on other boxes."""

import socket

from stoker_router.worker import SILENCE, notice_silence


def test_a_box_that_says_nothing_more_is_given_up() -> None:
    """Whether the kernel then gives it up takes a box to switch off: tests/bench/bench_ray_nodes.py."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as one,
    ):
        notice_silence(one)
        assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == SILENCE * 1000
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle, between = (
            one.getsockopt(socket.IPPROTO_TCP, name) for name in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL)
        )
        assert idle + between < SILENCE  # an answer that is long in coming is asked after in time
