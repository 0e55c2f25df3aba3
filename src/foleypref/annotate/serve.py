"""`foleypref annotate`: the plan, the book, the media and the server, until Ctrl-C.

The first clips' media are made before the addresses are printed, the others while people listen. Everything
is on disk at every moment: after a kill the same command goes on where each rater was.
"""

from __future__ import annotations

import socket
import threading
from typing import Any, cast

from foleypref.annotate import require
from foleypref.annotate.guard import is_loopback
from foleypref.annotate.settings import OPERATOR, AnnotateSettings
from foleypref.models.backbones import Model
from foleypref.models.playback import ModelMedia, Waves
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import say

FIRST = 4  # clips whose media are there before anybody comes
EXPOSED = """\
annotate: this server listens on {host}, so everybody who reaches this machine can open it.
annotate: It speaks plain HTTP: names, sound and tokens can be read on the way, and a token is all it
annotate: takes to rate as somebody else. Put a reverse proxy with TLS in front and give its address as
annotate: --public-url, or stay on 127.0.0.1 and let people in by `ssh -L {port}:127.0.0.1:{port}`."""


def annotate(workspace: Workspace, settings: AnnotateSettings, waves: Waves | None = None) -> None:
    """Serve the rating tool until interrupted. `waves` decodes candidates; by default the model does.

    Raises ValueError for a port in use, no clips to rate, a database that does not answer, a missing extra.
    """
    require("fastapi", "uvicorn", "sqlalchemy")
    import uvicorn

    from foleypref.annotate.app import create_app
    from foleypref.annotate.book import EventBook
    from foleypref.annotate.desk import Desk
    from foleypref.annotate.soundtracks import Studio, prepare
    from foleypref.annotate.tasks import make_plan
    from foleypref.annotate.tokens import Doorkeeper

    with workspace.lock("annotate"), _listen(settings.host, settings.port) as door_socket:
        plan = make_plan(workspace, settings)
        book = EventBook.of(workspace.root, settings.database)
        model = cast(Model, settings.model)
        studio = Studio(workspace, waves or ModelMedia(workspace, model, settings.device).waves)
        door = Doorkeeper(book)
        desk = Desk(settings, book, door, studio, plan)
        desk.warm()
        order = [*plan.overlap, *plan.rest]
        prepare(studio, plan, order[:FIRST])
        port = door_socket.getsockname()[1]
        base_url = settings.public_url.rstrip("/") or _address(settings.host, port)
        config = uvicorn.Config(
            create_app(desk, base_url), log_level="warning", access_log=False, lifespan="off",
            server_header=False, timeout_graceful_shutdown=3, ws="none", proxy_headers=False,
        )  # fmt: skip
        _greet(door, settings, base_url, port, len(plan.units))
        stopping = threading.Event()
        rest = threading.Thread(
            target=prepare, args=(studio, plan, order[FIRST:], stopping.is_set), daemon=True
        )
        rest.start()
        try:
            uvicorn.Server(config).run(sockets=[door_socket])
        finally:
            stopping.set()
            rest.join(30)  # it ends with the clip it is at
            book.close()


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens, before anything else is begun. Raises ValueError if it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a restart need not wait a minute
    try:
        made.bind((host, port))
        made.listen(128)
    except OSError as error:
        made.close()
        reason = error.strerror or str(error)
        raise ValueError(
            f"cannot listen on {host} port {port}: {reason}; give another --port (0: any free one) or --host"
        ) from None
    return made


def _address(host: str, port: int) -> str:
    if host in ("0.0.0.0", "::", ""):
        host = socket.gethostname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _greet(door: Any, settings: AnnotateSettings, base_url: str, port: int, num_clips: int) -> None:
    """Addresses on stdout, as they are this command's result; what to know about them on stderr."""
    say(f"annotate: {num_clips} clips to {settings.task}, at {base_url} until Ctrl-C")
    known = {rater.name for rater in door.known()}
    wanted = list(dict.fromkeys((OPERATOR, *settings.raters, *settings.renew)))
    if not {*known, *wanted} - {OPERATOR}:
        wanted.append("rater")
    for name in wanted:
        if name not in known or name in settings.renew:
            page, role = ("operator", OPERATOR) if name == OPERATOR else ("", "rater")
            print(f"{name:<12} {base_url}/{page}#token={door.new_token(name, role)}", flush=True)
    old = sorted(known - set(settings.renew))
    if old:
        say(f"annotate: addresses given before stay good: {', '.join(old)}; --renew NAME makes another")
    say("annotate: an address is a key: whoever has it rates under its name; it is shown this once")
    if not is_loopback(settings.host):
        say(EXPOSED.format(host=settings.host, port=port))
