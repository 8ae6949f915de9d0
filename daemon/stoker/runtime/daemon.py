"""The composition root: builds the parts, joins them in one task group, ends them in order."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace

import anyio
from anyio import CancelScope
from anyio.abc import TaskGroup

from stoker.config.outcome import EffectiveConfig
from stoker.errors import ConfigError, ConflictError, StokerError
from stoker.model.event import (
    ConfigApplied,
    Event,
    InventoryChanged,
    Notice,
    ReplicaEvent,
    TargetChanged,
)
from stoker.model.service import DesiredState, ServiceKey, ServiceSpec
from stoker.model.state import ObservedState
from stoker.plugin import loop
from stoker.plugin.manager import PluginRegistry
from stoker.plugin.ports import Application, PluginContext
from stoker.runtime.actuator import Actuator
from stoker.runtime.addresses import ServiceAddresses, WorkerPorts
from stoker.runtime.adoption import adopt, again_in, to_be_taken_over
from stoker.runtime.autoscaler import Autoscaler
from stoker.runtime.box_budget import BoxBudget, measure_room
from stoker.runtime.configuration import Configuration
from stoker.runtime.control import ControlLoop
from stoker.runtime.device_care import DeviceCare
from stoker.runtime.device_marks import DeviceMarks
from stoker.runtime.doors import TcpDoors, open_api
from stoker.runtime.facade import Facade, Whole
from stoker.runtime.guarantees import devices_decide, refuse_clash
from stoker.runtime.keepsakes import Keepsakes
from stoker.runtime.launcher import Launcher
from stoker.runtime.measure import RouterLink
from stoker.runtime.notify import SystemdNotifier
from stoker.runtime.options import DaemonOptions, Observer
from stoker.runtime.outputs import Outputs
from stoker.runtime.parts import Parts
from stoker.runtime.past import Past
from stoker.runtime.preparation import Preparation
from stoker.runtime.probing import NetworkProber
from stoker.runtime.pulse import Pulse
from stoker.runtime.redaction import Redaction
from stoker.runtime.router_choice import Chooser
from stoker.runtime.router_record import RouterRecord
from stoker.runtime.routers import Routers
from stoker.runtime.routes import RouteFeed
from stoker.runtime.secret_files import SecretFiles
from stoker.runtime.store import Store
from stoker.runtime.succession import Ending, begin_anew, bury, rehearse
from stoker.runtime.terminal import hung_up
from stoker.runtime.words import WorkerWords

DEVICES_PATIENCE = 3.0
"""Seconds that the first look at the devices is waited for where it decides whether a file can be kept."""
ROUTER_GRACE = 10.0
"""Seconds the router gets to finish what is in flight when everything ends."""


def run_daemon(options: DaemonOptions) -> int:
    """Run a daemon until it is told to end; returns its exit code. Raises StokerError if it cannot begin.

    One that is told to make way for another (`stoker reexec`) does not return: the same process begins anew
    with the same arguments, so its children stay its own and a supervisor sees nothing end.
    """
    if anyio.run(_main, options, backend="asyncio", backend_options=loop.OPTIONS):
        begin_anew()
    return 0


async def _main(options: DaemonOptions) -> bool:
    """Returns whether another is to begin in its place."""
    store = Store(options.state_dir)
    store.acquire()
    bury(lambda: {record.handle.pid for record in store.workers() if record.handle is not None})
    daemon: Daemon | None = None
    try:
        await anyio.Path(options.runtime_dir).mkdir(parents=True, exist_ok=True, mode=0o750)
        async with anyio.create_task_group() as tasks:
            daemon = Daemon(options, store, tasks)
            again = await daemon.run()
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # One fault reaches the command line as itself, not wrapped in the task group that it ended.
        known, rest = group.split(StokerError)
        if known is not None and rest is None:
            raise _first(known) from None
        raise
    finally:
        if daemon is not None:
            with CancelScope(shield=True):
                await daemon.aclose()
        store.release()
    return again


class Daemon:
    """One daemon. `tasks` is the group in which everything of it runs."""

    def __init__(self, options: DaemonOptions, store: Store, tasks: TaskGroup) -> None:
        registry = PluginRegistry()
        registry.load(disabled=options.disabled_plugins)
        context = _context(options, store)
        self._options, self._store, self._tasks = options, store, tasks
        self._ending, self._routes = Ending(), RouteFeed()
        self._systemd = SystemdNotifier(context.environ if options.systemd else {})
        secrets = SecretFiles(options.state_dir, context.environ, options.secrets_dir)
        redacted = (redaction := Redaction(secrets, lookup=self._lookup, post=self._post)).post
        self._words = WorkerWords(options.runtime_dir, state=self._state, lookup=self._lookup, post=redacted)
        self._kept = Keepsakes(options.state_dir, self._trouble)
        care = self._bring_parts(registry, context)
        addresses = ServiceAddresses(store, self._trouble)
        self._actuator = Actuator(
            tasks=tasks,
            store=store,
            launcher=_launcher(context, addresses, self._words, self._parts.application, secrets),
            prober=NetworkProber(),
            driver=self._parts.driver,
            lookup=self._lookup,
            routed=self._routes.knows,
            post=redacted,
            unnoted=care.unnoted,
        )
        self._control = ControlLoop(
            journal=self._kept.journal(time.time),
            perform=self._actuator.perform,
            publish=self._routes.publish,
            addresses=addresses.table,
            serial=time.time_ns() // 1_000_000,
        )
        self._autoscaler = Autoscaler(
            policy=self._parts.policy,
            usage=self._actuator.usage,
            state=self._state,
            desired=lambda: self._control.desired,
            post=self._post,
            budget=BoxBudget(measure_room(), self._parts.clusters.rooms),
            startup=self._kept.startups.of,
            memories=self._kept.memories,
        )
        self._configuration = Configuration(
            options,
            store,
            environ=context.environ,
            check=self._check,
            remarks=self._parts.remarks,
            inspection=self._parts.inspection("bento"),
            apply=self._apply,
            post=self._post,
            secrets=secrets,
        )
        preparation = self._parts.preparation = Preparation(
            tasks=tasks, driver=self._parts.driver, lookup=self._lookup, post=redacted
        )
        self.facade = self._face(addresses, care.marks)
        self.facade.quote = redaction.text
        self._control.listen(self._after_event)
        for listener in (care.after_event, self._actuator.after_event, preparation.after_event):
            self._control.listen(listener)

    def _bring_parts(self, registry: PluginRegistry, context: PluginContext) -> DeviceCare:
        """Make the plugins' parts, and the care that their devices pass by."""
        care = DeviceCare(
            self._store,
            tasks=self._tasks,
            instance=context.instance,
            replicas=lambda: tuple(self._state().replicas.values()),
            lookup=self._lookup,
            post=self._post,
        )
        parts = self._parts = Parts(registry, context, post=self._post, overlay=care.over)
        care.attach(parts)
        return care

    def _face(self, addresses: ServiceAddresses, marks: DeviceMarks) -> Facade:
        pulse = Pulse()
        link = RouterLink(self._autoscaler, state=self._state, post=self._post, measured=pulse.beat)
        return Facade(
            control=self._control,
            configuration=self._configuration,
            autoscaler=self._autoscaler,
            addresses=addresses,
            parts=self._parts,
            marks=marks,
            past=Past(self._control, self._autoscaler, link, pulse, self._kept.startups),
            whole=Whole(
                state_dir=self._options.state_dir,
                doors=TcpDoors(
                    tasks=self._tasks,
                    state_dir=self._options.state_dir,
                    post=self._post,
                    tls=self._options.tls,
                ),
                end=self._end,
                replace=self._replace,
            ),
        )

    # -- life ------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Give back what the parts hold, once nothing of it runs any more. Workers go on."""
        await self._parts.aclose()

    async def run(self) -> bool:
        """Live until told to end; returns whether another is to begin in its place. Raises StokerError if the
        daemon cannot begin at all."""
        start, registry = self._tasks.start_soon, self._parts.registry
        start(self._signals)
        start(self._systemd.run_watchdog)
        start(self._words.run)
        start(self._kept.events.run)
        self._control.state = self._kept.revisions.recall(self._control.state)
        # One that takes over has its workers in hand first; one that must read its files answers meanwhile.
        if leaving := self._options.leaving:
            self._end()
        takes_over = to_be_taken_over(self._store) and self._configuration.recall(stale=leaving)
        if not (takes_over or leaving):
            self._parts.look_at_devices(self._tasks)
            await open_api(self.facade, self._tasks, self._options)
            await self._configure()
        outputs = Outputs(self._options, self._control, self._actuator.growing_logs, self._trouble)
        self._control.listen(outputs.after_event)
        await self._tasks.start(outputs.run)
        await self._adopt()
        for observer in self._options.observers:
            start(self._observe, observer)
        router = self.facade.router = self._routers()
        start(router.run, self.facade.past.link)
        start(self._routes.run, router)
        for name in registry.names("event sink"):
            start(self._parts.run_sink, name, self._control.journal)
        scaler, files = self._autoscaler, (self._configuration.watch, self._configuration.reading.run)
        for run in (self._control.run, scaler.run, scaler.run_usage, scaler.run_readings, *files):
            if not (leaving and run in files):
                start(run)
        if takes_over or leaving:
            self._parts.look_at_devices(self._tasks)
            await open_api(self.facade, self._tasks, self._options)
        gc.freeze()  # what was made until now mostly stays: no collection has to go through it again
        self._systemd.ready(self._status_line())
        await self._ending.wait()
        if self._control.state.stopping:
            await self._control.until_empty()
            self._kept.close()
            await router.stop(ROUTER_GRACE)
        elif self._ending.successor:
            self._systemd.reloading()
            return True
        self._systemd.stopping()
        return False

    def _routers(self) -> Routers:
        registry, record = self._parts.registry, RouterRecord(self._store, self._trouble)
        choice = Chooser(registry, self._lookup, lambda: self._control.desired.box.router)
        return Routers(
            make=self._parts.router,
            choose=choice.of,
            known=record.known(self._control.desired.box.router, registry.names("router")),
            keep=record.keep,
            processes=lambda: self._control.desired.box.router_processes,
        )

    async def _configure(self) -> None:
        """Load the first configuration. In the foreground a bad one is the end; a system daemon waits for a
        good one instead, since its workers may be alive and must not be taken for superfluous."""
        while True:
            try:
                await self._configuration.reload()
            except ConfigError:
                self.facade.past.beat()  # whoever waits for the configuration is told
                if self._options.stop_on_exit:
                    raise
                self._systemd.ready("configuration rejected; waiting for a good one")
                await self._configuration.wait_for_change()
            else:
                break
        effective = self._configuration.effective
        if self._options.stop_on_exit and effective is not None and devices_decide(effective):
            # At a terminal it is better told now. A system daemon whose box has lost a GPU must come up.
            await self._parts.until_devices(DEVICES_PATIENCE)
            refuse_clash(effective, self._parts.devices)

    async def _adopt(self) -> None:
        names = {spec.backend for spec in self._control.desired.services.values()}
        names |= {record.driver for record in self._store.workers()}
        targets = {key: count for key, count in self._store.read("targets").items() if isinstance(count, int)}
        self._control.state = replace(self._control.state, targets=targets)
        count = await adopt(
            store=self._store,
            drivers=self._parts.drivers(names),
            actuator=self._actuator,
            post=self._post,
            later=again_in(self._tasks, self._store, self._post),
        )
        if count:
            self._post(
                Notice(
                    message=f"took over {count} {'worker' if count == 1 else 'workers'} of the daemon before"
                )
            )
        self._control.act()  # before anything else runs: from here on the workers are in hand

    async def _signals(self) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async for number in signals:
                if number == signal.SIGHUP and not (self._options.stop_on_exit and hung_up()):
                    self._tasks.start_soon(self._reload)
                elif not self._options.stop_on_exit:
                    self._ending.begin()
                elif self._control.state.stopping:
                    self._control.hurry()
                else:
                    self._end()

    async def _reload(self) -> None:
        self._systemd.reloading()
        try:
            await self._configuration.reload()
        except StokerError:
            self._systemd.ready("configuration rejected; the last good one is in force")
        else:
            self._systemd.ready(self._status_line())

    def _end(self) -> None:
        """Begin to drain everything; `run` waits for it."""
        self._control.stop()
        self._systemd.stopping("draining")
        self._ending.begin()

    async def _replace(self) -> None:
        """Begin to make way for a new daemon. Raises StokerError if that one could not begin."""
        if self._control.state.stopping:
            raise ConflictError("everything is being stopped; start a new daemon after that")
        await self._configuration.preview((), None, ())
        await rehearse()
        self._ending.begin(successor=True)

    # -- reactions -------------------------------------------------------------------------------------

    def _post(self, event: Event) -> None:
        self._control.post(event)

    def _state(self) -> ObservedState:
        return self._control.state

    def _lookup(self, service: ServiceKey) -> ServiceSpec | None:
        return self._control.desired.services.get(service)

    def _apply(self, desired: DesiredState) -> None:
        before = self._control.desired
        self._parts.options = {"ray": {"address": desired.box.ray}}
        if self._parts.preparation is not None:
            self._parts.preparation.consider(desired)
        self._control.configure(desired)
        if before.generation and before.box != desired.box:
            self._routes.publish(self._control.routes)  # the same table, maybe for other routers
        self._autoscaler.reconsider()
        kept = {key for key, spec in desired.services.items() if not spec.held}
        self._tasks.start_soon(self._parts.retain, kept)

    def _check(self, effective: EffectiveConfig) -> None:
        self._parts.check(effective.desired)
        self._parts.check_routers(effective)
        refuse_clash(effective, self._parts.devices, before=self._configuration.effective)

    async def _observe(self, observer: Observer) -> None:
        try:
            await observer(self.facade)
        except Exception as error:  # noqa: BLE001 - what shows the daemon, must not end it
            self._trouble(f"what shows the state here has ended: {type(error).__name__}: {error}")

    def _after_event(self, event: Event) -> None:
        self._words.after(event)
        self._kept.follow(event, self._control.state)
        match event:
            case InventoryChanged():
                self._autoscaler.box_changed()
            case TargetChanged():
                self._keep_targets()
            case ConfigApplied():
                self._systemd.status(self._status_line())
        if isinstance(event, ReplicaEvent):
            self._autoscaler.reconsider([event.service])

    def _keep_targets(self) -> None:
        try:
            self._store.write("targets", self._control.state.targets)
        except OSError as error:
            self._trouble(f"cannot record the scale in force: {error}")

    def _trouble(self, message: str) -> None:
        self._post(Notice(message=message, severity="error"))

    def _status_line(self) -> str:
        ready = sum(replica.serving for replica in self._control.state.replicas.values())
        return f"{len(self._control.desired.services)} services, {ready} replicas ready"


def _context(options: DaemonOptions, store: Store) -> PluginContext:
    return PluginContext(
        instance=store.instance(),
        state_dir=options.state_dir,
        runtime_dir=options.runtime_dir,
        environ=dict(os.environ),
    )


def _launcher(
    context: PluginContext,
    addresses: ServiceAddresses,
    words: WorkerWords,
    application: Callable[[str], Application | None],
    secrets: SecretFiles,
) -> Launcher:
    return Launcher(
        instance=context.instance,
        state_dir=context.state_dir,
        environ=context.environ,
        url=addresses.url,
        ports=WorkerPorts(instance=context.instance),
        open_notify=words.open,
        application=application,
        secrets=secrets,
    )


def _first(group: BaseExceptionGroup[StokerError]) -> StokerError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
