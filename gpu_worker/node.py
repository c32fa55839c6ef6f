"""One node process: puts the parts together, serves the queues of its models, leaves in good order."""

import logging
import os
import secrets
import signal
import sys
import threading
from datetime import UTC, datetime
from typing import Any

import redis
from celery import signals as celery_signals
from celery.apps.worker import Worker
from celery.worker import WorkController
from celery.worker import state as worker_state

from contract.messages import NodeAnnouncement
from contract.queues import gpu_queue
from contract.signals import Signals, connect
from gpu_worker import __version__
from gpu_worker.announcer import Announcer, State, Tally
from gpu_worker.batcher import Batcher, EngineDied
from gpu_worker.broker import lets_us_be_controlled, wait_for_broker
from gpu_worker.celery_app import create_celery_app, silence_known_warnings
from gpu_worker.drain import Drain, Steps
from gpu_worker.engine_thread import EngineThread
from gpu_worker.engines.base import Engine
from gpu_worker.fail_open import FailOpen
from gpu_worker.finisher import Finisher
from gpu_worker.generation import Generation, Parts
from gpu_worker.leases import Leases
from gpu_worker.life_sign import LifeSign
from gpu_worker.log import set_up_log
from gpu_worker.registry import ENGINES
from gpu_worker.reports import Reports
from gpu_worker.settings import Settings
from gpu_worker.spoil import spoil_by, unspoiled
from gpu_worker.tasks import register_tasks
from gpu_worker.upload import Uploader
from gpu_worker.vigil import Vigil
from gpu_worker.watch import NodeWatch

logger = logging.getLogger(__name__)

ENGINE_DIED = 70  # exit code: EX_SOFTWARE
# For so long a thread may keep the others waiting (Python's own: 5 ms). The engine's thread gives way at each
# operation on the device, and must not wait long to launch the next one.
SWITCH_S = 0.0005
WORKER_HEARTBEAT_S = 10  # signs of life: for `health`, and events for whoever watches (Flower)


class CeleryWorker(Worker):
    """Celery's worker, but for its signal handlers: this node drains by its own code."""

    def install_platform_tweaks(self, worker: WorkController) -> None:
        """Installs no handlers: `Node` has its own."""


class Node:
    """The parts of one process, and their life."""

    def __init__(self, settings: Settings, engine: Engine, slot: str) -> None:
        self._concurrency = settings.node_concurrency or ENGINES[engine.name].concurrency
        self.name = f"{settings.node_name}/{slot}/{secrets.token_hex(3)}"
        self._settings = settings
        self._engine = engine
        self._state: State = "starting"
        self._started_at = datetime.now(UTC)
        self._worker: CeleryWorker | None = None
        self._cards = tuple(engine.models())
        self._tally = Tally()
        self._drain = Drain(settings.node_drain_s, exit_hard=lambda: os._exit(1))
        self._life_sign = LifeSign(settings.node_name, f"{engine.name}-{slot}", self._work)
        self._wire_up()

    def _wire_up(self) -> None:
        settings = self._settings
        fail_open = FailOpen("The result store", (redis.RedisError,))
        signals = Signals(connect(settings.result_url))
        self._app = create_celery_app(settings)
        self._batcher = Batcher(
            self._engine, window_s=settings.batch_window_ms / 1000, crowd=self._concurrency
        )
        self._watch = NodeWatch(signals, fail_open)
        self._engine_thread = EngineThread(
            self._engine, self._batcher, self._watch, lambda: self._drain.request(ENGINE_DIED)
        )
        self._vigil = Vigil(self._engine_thread.silent_for, settings.node_stall_s, self._end_the_stall)
        self._announcer = Announcer(signals, fail_open, self._describe, settings.node_announce_s)
        spoil = spoil_by(settings.sketch_faults) if self._engine.name == "sketch" else unspoiled
        self._uploader = Uploader(settings.upload_timeout_s)
        finisher = Finisher(self._uploader, f"Fanfare {__version__}", spoil)
        self._reports = Reports(self._app, signals, fail_open, lambda: self._drain.request(ENGINE_DIED))
        self._leases = Leases(self._channel)
        parts = Parts(self._batcher, self._watch, finisher, signals, fail_open, self._reports, self._tally)
        cards = {card.name: card for card in self._cards}
        self._generation = Generation(self.name, cards, parts, attempts_allowed=settings.node_attempts)
        register_tasks(self._app, self._generation)

    def run(self) -> int:
        """Serves until it is told to leave; the exit code of the process."""
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: self._drain.request())
        self._drain.set_steps(
            Steps(
                stop_taking=self._stop_taking,
                in_hand=lambda: self._tally.running,
                drop=self._watch.drop_all,
                abandon=self._abandon,
                leave=self._leave,
            )
        )
        for thread in (
            self._drain, self._watch, self._announcer, self._engine_thread, self._vigil, self._reports,
            self._leases,
        ):  # fmt: skip
            thread.start()
        # Sent by the loop that takes messages, as long as it is connected
        celery_signals.heartbeat_sent.connect(self._give_life_sign)
        code = self._serve()
        self._life_sign.take_back()
        self._announcer.leave()
        self._batcher.close()
        self._watch.stop()
        self._vigil.stop()
        self._leases.stop()
        self._reports.stop()
        self._uploader.close()
        self._engine_thread.join(timeout=10)
        logger.info("Gone")
        return code

    def _end_the_stall(self) -> None:
        """Nobody waits for the device any longer; the launcher starts a process that may have more luck."""
        self._drain.request(ENGINE_DIED)
        self._engine_thread.hand_back(EngineDied)

    def request_drain(self) -> None:
        """From any thread."""
        self._drain.request()

    def _serve(self) -> int:
        """Runs Celery's worker in this thread; what it returns is the exit code."""
        logger.info("Node %s: models %s", self.name, ", ".join(card.name for card in self._cards))
        if self._engine.name == "sketch" and self._settings.sketch_faults:
            logger.warning("A simulator with faults: %s", self._settings.sketch_faults)
        if not wait_for_broker(self._app, self._drain.asked.wait):
            return 0
        self._app.conf.worker_enable_remote_control = lets_us_be_controlled(self._app)
        worker = self._worker = self._celery_worker()
        if self._drain.asked.is_set():
            return 0
        worker.start()
        if not self._drain.asked.is_set():  # its own doing: it was told so by remote control, or it failed
            return worker.exitcode or 0
        return int(worker_state.should_stop or 0)

    def _celery_worker(self) -> CeleryWorker:
        return CeleryWorker(
            app=self._app,
            hostname=f"{self.name.replace('/', '.')}@{os.uname().nodename}",
            pool="threads",
            concurrency=self._concurrency,
            queues=[gpu_queue(card.name) for card in self._cards],
            loglevel=self._settings.log_level,
            quiet=True,  # no banner
            without_gossip=True,
            without_mingle=True,
            heartbeat_interval=WORKER_HEARTBEAT_S,
            ready_callback=self._ready,
        )

    def _ready(self, _consumer: object) -> None:
        logger.info("Ready")
        self._set_state("ready")
        self._give_life_sign()

    def _give_life_sign(self, **_: object) -> None:
        self._life_sign.give()

    def _work(self) -> str | None:
        """What is being done, in words; None once there is nobody to do it."""
        if not self._engine_thread.is_alive():
            return None
        tally = self._tally
        return f"{self._state}, {tally.running} in hand, {tally.done} done, {tally.failed} failed"

    def _set_state(self, state: State) -> None:
        self._state = state
        self._announcer.tell_news()

    # -- the end --------------------------------------------------------------------------------------

    def _stop_taking(self) -> None:
        self._set_state("draining")
        consumer = self._worker and getattr(self._worker, "consumer", None)
        if consumer and consumer.task_consumer:
            stopped = threading.Event()

            def cancel_queues() -> None:
                for card in self._cards:
                    consumer.cancel_task_queue(gpu_queue(card.name))
                stopped.set()

            consumer.call_soon(cancel_queues)
            stopped.wait(2)  # or else what is handed back would come again at once
        self._batcher.close()

    def _abandon(self) -> None:
        """Nobody waits any longer, neither for the engine nor for a broker that is away."""
        self._engine_thread.hand_back()
        self._reports.give_up()

    def _channel(self) -> Any:  # noqa: ANN401 - kombu's, of whichever transport
        """What messages are taken from; None: there is none just now."""
        consumer = self._worker and getattr(self._worker, "consumer", None)
        return getattr(consumer and consumer.task_consumer, "channel", None)

    def _leave(self, exit_code: int) -> None:
        """Ends Celery's worker: it looks at this flag in its loop, and while it waits for the broker."""
        worker_state.should_stop = exit_code  # type: ignore[assignment]  # the stubs know only None
        consumer = self._worker and getattr(self._worker, "consumer", None)
        if consumer:
            consumer.call_soon(lambda: None)  # wakes the loop

    def _describe(self) -> NodeAnnouncement:
        engine = self._engine.state()
        return NodeAnnouncement(
            node=self.name,
            version=__version__,
            device=self._engine.device,
            models=self._cards,
            loaded=engine.loaded,
            loading=engine.loading,
            state=self._state,
            concurrency=self._concurrency,
            running=self._tally.running,
            in_hand=self._generation.in_hand(),
            doing=engine.doing,
            memory_used_bytes=engine.memory_used_bytes,
            done=self._tally.done,
            failed=self._tally.failed,
            started_at=self._started_at,
            seen_at=datetime.now(UTC),
        )


def serve(settings: Settings, engine_name: str, slot: str) -> int:
    """The life of one node process; its exit code. Ends with its launcher, whose end closes our stdin."""
    set_up_log(settings.log_level, settings.secrets())
    silence_known_warnings()
    celery_signals.setup_logging.connect(_leave_the_log_alone)
    sys.setswitchinterval(SWITCH_S)
    try:
        engine = ENGINES[engine_name].make(settings)
    except Exception:
        logger.critical("The engine %s can't be started", engine_name, exc_info=True)
        return 1
    node = Node(settings, engine, slot)
    threading.Thread(target=_watch_launcher, args=(node,), name="launcher-watch", daemon=True).start()
    return node.run()


def _leave_the_log_alone(**_: object) -> None:
    """A receiver of this signal keeps Celery from setting up logging of its own."""


def _watch_launcher(node: Node) -> None:
    """The launcher holds the other end of our stdin and never writes: it can be read once he is gone."""
    os.read(sys.stdin.fileno(), 1)
    node.request_drain()
