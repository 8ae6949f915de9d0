"""The conformance suite of routers, for the one that is HAProxy."""

from stoker.plugin.testing.router import RouterSuite


class TestHaproxyRouter(RouterSuite):
    factory = "stoker_haproxy.plugin:make"
