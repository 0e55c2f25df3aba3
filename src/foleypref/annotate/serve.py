"""`foleypref annotate`: prepare the media, print the raters' addresses, and serve until Ctrl-C.

The media of the first clips are made before the addresses are printed, the rest in the background. Everything
is on disk at every moment: after a kill, the same command continues where each rater was.
"""

from __future__ import annotations

import socket
import threading
from typing import Any

from foleypref.annotate import require
from foleypref.annotate.settings import OPERATOR, AnnotateSettings, is_loopback
from foleypref.models.playback import ModelMedia, Waves
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import say

NUM_FIRST = 4  # clips whose media are made before the first rater comes
EXPOSED = """\
annotate: this server listens on {host}, so everybody who reaches this machine can open it.
annotate: It speaks plain HTTP: names, sound and tokens can be read on the way, and whoever has a token
annotate: can rate under that name. Put a reverse proxy with TLS in front and give its address as
annotate: --public-url, or stay on 127.0.0.1 and let raters in by `ssh -L {port}:127.0.0.1:{port}`."""


def annotate(workspace: Workspace, settings: AnnotateSettings, waves: Waves | None = None) -> None:
    """Serve the rating tool until interrupted. `waves` decodes candidates; by default the model does.

    Raises ValueError if the port is in use, there are no clips to rate, the database does not answer, or the
    extra is not installed.
    """
    require("fastapi", "uvicorn", "sqlalchemy")
    import uvicorn

    from foleypref.annotate.app import create_app
    from foleypref.annotate.assignments import make_assignments
    from foleypref.annotate.campaign import Campaign
    from foleypref.annotate.event_log import EventLog
    from foleypref.annotate.media_store import MediaStore, prepare

    with workspace.lock("annotate"), _listen(settings.host, settings.port) as listening:
        assignments = make_assignments(workspace, settings)
        log = EventLog.of(workspace.root, settings.database)
        waves = waves or ModelMedia(workspace, settings.model, settings.device).waves
        media = MediaStore(workspace, waves)
        campaign = Campaign(settings, log, media, assignments)
        campaign.histories.read_all()
        order = [*assignments.overlap, *assignments.rest]
        prepare(media, assignments, order[:NUM_FIRST])
        port = listening.getsockname()[1]
        base_url = settings.public_url.rstrip("/") or _base_url(settings.host, port)
        config = uvicorn.Config(
            create_app(campaign, base_url), log_level="warning", access_log=False, lifespan="off",
            server_header=False, timeout_graceful_shutdown=3, ws="none", proxy_headers=False,
        )  # fmt: skip
        say(f"annotate: {len(assignments.clip_tasks)} clips to {settings.task}, at {base_url} until Ctrl-C")
        _print_addresses(campaign.tokens, settings, base_url, port)
        stopping = threading.Event()
        rest = threading.Thread(
            target=prepare, args=(media, assignments, order[NUM_FIRST:], stopping.is_set), daemon=True
        )
        rest.start()
        try:
            uvicorn.Server(config).run(sockets=[listening])
        finally:
            stopping.set()
            rest.join(30)  # it stops after the current clip
            log.close()


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket, so that a port in use is found out first. Raises ValueError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a restart need not wait a minute
    try:
        listening.bind((host, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise ValueError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; "
            "give another --port (0: any free one) or --host"
        ) from None
    return listening


def _base_url(host: str, port: int) -> str:
    if host in ("0.0.0.0", "::", ""):
        host = socket.gethostname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _print_addresses(tokens: Any, settings: AnnotateSettings, base_url: str, port: int) -> None:
    """Print new addresses on stdout, because they are this command's result, and notes on stderr."""
    known = {rater.name for rater in tokens.raters()}
    names = list(dict.fromkeys((OPERATOR, *settings.raters, *settings.renew)))
    if not {*known, *names} - {OPERATOR}:
        names.append("rater")
    for name in names:
        if name not in known or name in settings.renew:
            page, role = ("operator", OPERATOR) if name == OPERATOR else ("", "rater")
            print(f"{name:<12} {base_url}/{page}#token={tokens.new_token(name, role)}", flush=True)
    old = sorted(known - set(settings.renew))
    if old:
        say(f"annotate: addresses given before stay good: {', '.join(old)}; --renew NAME replaces one")
    say("annotate: an address is a key: whoever has it rates under its name; it is shown only this once")
    if not is_loopback(settings.host):
        say(EXPOSED.format(host=settings.host, port=port))
