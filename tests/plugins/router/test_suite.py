"""The conformance suite of routers, for the default one."""

from stoker.plugin.testing.router import RouterSuite


class TestStokerRouter(RouterSuite):
    factory = "stoker_router.link:ProgramLink"
