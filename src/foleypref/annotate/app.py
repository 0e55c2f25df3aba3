"""The web application: routes to the desk and to the operator's page, each with its token.

Answers are JSON; an error is {"reason": one line}. A caption goes out as it is: that it is text and no markup
is the page's to see to, and the content security policy forbids what would run.
"""

from __future__ import annotations

import asyncio
import json
import mimetypes
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from foleypref.annotate.checks import Refused
from foleypref.annotate.desk import Desk
from foleypref.annotate.events import parse_event
from foleypref.annotate.fold import fold, histories, merged
from foleypref.annotate.guard import MAX_BODY, Guard
from foleypref.annotate.labels import FORMATS, render
from foleypref.annotate.operator import Watch
from foleypref.annotate.rows import Rater
from foleypref.annotate.settings import OPERATOR
from foleypref.scoring.opinions import HUMAN

STATIC = Path(__file__).parent / "static"
POST_THREADS = 8  # as many verdicts share one wait for the disk
NO_STORE = {"cache-control": "no-store"}  # also that no copy tells when a file was made


class NewRater(BaseModel):
    """What the operator posts for an address."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(max_length=64)
    renew: bool = False  # another address for somebody who has one


def create_app(desk: Desk, base_url: str, static: Path = STATIC) -> Any:
    """The application as uvicorn runs it. `base_url`: how addresses for raters begin."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    _pages(app, static)
    _rater_routes(app, desk)
    _operator_routes(app, desk, base_url.rstrip("/"))
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(SQLAlchemyError, _no_database)
    return Guard(app, desk.settings.host, desk.settings.public_url)


def _pages(app: FastAPI, static: Path) -> None:
    mimetypes.add_type("text/javascript", ".js")  # some systems say otherwise, and browsers then refuse it
    fresh = {"cache-control": "no-cache"}

    @app.get("/")
    def index() -> Response:
        return FileResponse(static / "index.html", headers=fresh)

    @app.get("/operator")
    def operator_page() -> Response:
        return FileResponse(static / "operator.html", headers=fresh)

    if static.is_dir():
        app.mount("/static", StaticFiles(directory=static))


def _rater_routes(app: FastAPI, desk: Desk) -> None:
    # Verdicts have threads of their own: they never wait behind media that are being made.
    posts = ThreadPoolExecutor(POST_THREADS, "posts")

    @app.get("/api/me")
    def me(request: Request) -> Response:
        return _json(desk.me(_rater(desk, request)))

    @app.get("/api/tasks/next")
    def next_tasks(request: Request) -> Response:
        rater, ahead = _rater(desk, request), request.query_params.get("ahead", "0")
        if not (ahead.isascii() and ahead.isdigit() and len(ahead) < 4):
            raise Refused(422, "ahead: a number from 0 to 3")
        return _json({"tasks": desk.next_tasks(rater, int(ahead))})

    @app.post("/api/events")
    async def post_event(request: Request) -> Response:
        def post(body: bytes) -> Response:
            rater = _rater(desk, request)
            try:
                event = parse_event(body)
            except ValueError as error:
                raise Refused(422, str(error)) from None
            return _json(desk.post(rater, event))

        body = await _body(request)
        return await asyncio.get_running_loop().run_in_executor(posts, post, body)

    @app.get("/media/{task_id}/{which}")
    def media(request: Request, task_id: str, which: str) -> Response:
        path = desk.media(_rater(desk, request), task_id, which)
        if path.suffix == ".mp4":
            return FileResponse(path, media_type="video/mp4", headers=NO_STORE)
        # Whole and without a date: the date of a file would tell which soundtrack was made for a check.
        return Response(path.read_bytes(), media_type="audio/wav", headers=NO_STORE)


def _operator_routes(app: FastAPI, desk: Desk, base_url: str) -> None:
    watch = Watch(desk)

    @app.get("/api/operator/summary")
    def operator_summary(request: Request) -> Response:
        _operator(desk, request)
        return _json(watch.summary())

    @app.get("/api/operator/export")
    def export(request: Request) -> Response:
        _operator(desk, request)
        kind = request.query_params.get("format", "parquet")
        if kind not in FORMATS:
            raise Refused(422, f"format: one of {', '.join(FORMATS)}")
        suffix, media_type = FORMATS[kind]
        disposition = {"content-disposition": f'attachment; filename="labels{suffix}"'}
        content = _exported(desk, kind)
        return Response(content, media_type=media_type, headers={**NO_STORE, **disposition})

    @app.post("/api/operator/raters")
    async def add_rater(request: Request) -> Response:
        def add(body: bytes) -> Response:
            _operator(desk, request)
            try:
                wanted = NewRater.model_validate_json(body)
                if wanted.name in desk.door.names() and not wanted.renew:
                    raise Refused(
                        409, f"{wanted.name} has an address; with renew a new one, and the old ends"
                    )
                token = desk.door.new_token(wanted.name)
            except ValidationError as error:
                raise Refused(422, error.errors()[0]["msg"]) from None
            except ValueError as error:
                raise Refused(422, str(error)) from None
            return _json({"name": wanted.name, "url": f"{base_url}/#token={token}"})

        return await run_in_threadpool(add, await _body(request))


def _rater(desk: Desk, request: Request) -> str:
    found = _who(desk, request)
    if found.role == OPERATOR:
        raise Refused(403, "this address is the operator's; raters have their own")
    return found.name


def _operator(desk: Desk, request: Request) -> None:
    if _who(desk, request).role != OPERATOR:
        raise Refused(403, "this is for the operator alone")


def _who(desk: Desk, request: Request) -> Rater:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    found = desk.door.who(token.strip()) if scheme.lower() == "bearer" else None
    if found is None:
        raise Refused(401, "this address is not known here; ask the operator for a new one")
    return found


async def _body(request: Request) -> bytes:
    """A request's JSON text, its size looked at before anything reads it."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, "send application/json")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise Refused(413, f"a request has at most {MAX_BODY} bytes")
    return body


def _exported(desk: Desk, kind: str) -> bytes:
    """What people have said up to now, also where no stage has read it yet."""
    workspace = desk.studio.workspace
    ratings, votes = merged(workspace, fold(histories(desk.book).items()))
    people = [r for r in ratings if r.source == HUMAN], [v for v in votes if v.source == HUMAN]
    return render(kind, workspace, *people)


def _json(content: Any) -> Response:
    try:
        text: str | bytes = to_json(content)  # outlines are thousands of numbers
    except ValueError:  # half a surrogate pair in somebody's caption
        text = json.dumps(content)
    return Response(text, media_type="application/json", headers=NO_STORE)


async def _refused(request: Request, error: Any) -> Response:
    headers = {"www-authenticate": "Bearer"} if error.status == 401 else {}
    return JSONResponse({"reason": error.reason}, error.status, headers={**NO_STORE, **headers})


async def _http_error(request: Request, error: Any) -> Response:
    return JSONResponse({"reason": str(error.detail)}, error.status_code, headers=error.headers)


async def _no_database(request: Request, error: Any) -> Response:
    return JSONResponse({"reason": "the book does not answer; nothing was written, try again"}, 503)
