"""The web application: HTTP routes of a campaign and of the operator's page, each checked by its token.

Replies are JSON; an error is {"reason": one line}. A caption is sent as it is: the page inserts it as text,
and the content security policy forbids scripts in it.

Bodies are parsed here and not by FastAPI, so that the token, the content type and the size are checked before
anything parses a body, and so that a malformed body gets the same one-line 422 whatever is wrong with it.
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

from foleypref.annotate import STATIC
from foleypref.annotate.campaign import Campaign, Refused
from foleypref.annotate.events import parse_event
from foleypref.annotate.fold import fold, merged
from foleypref.annotate.guard import MAX_BODY, Guard
from foleypref.annotate.history import read_histories
from foleypref.annotate.labels import FORMATS, render
from foleypref.annotate.operator_view import OperatorView
from foleypref.annotate.settings import OPERATOR
from foleypref.scoring.human_labels import HUMAN

POST_THREADS = 8  # that many verdicts can share one wait for the disk
NO_STORE = {"cache-control": "no-store"}  # also because a cached copy would tell when a file was made


class NewRater(BaseModel):
    """The operator's request for an address."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(max_length=64)
    renew: bool = False  # replace the address of a rater who has one


def create_app(campaign: Campaign, base_url: str, static: Path = STATIC) -> Any:
    """Return the ASGI application. `base_url` is the beginning of the raters' addresses."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    _add_pages(app, static)
    _add_rater_routes(app, campaign)
    _add_operator_routes(app, campaign, base_url.rstrip("/"))
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(SQLAlchemyError, _database_error)
    return Guard(app, campaign.settings.host, campaign.settings.public_url)


def _add_pages(app: FastAPI, static: Path) -> None:
    mimetypes.add_type("text/javascript", ".js")  # some systems have another type, which browsers refuse
    headers = {"cache-control": "no-cache"}

    @app.get("/")
    def index() -> Response:
        return FileResponse(static / "index.html", headers=headers)

    @app.get("/operator")
    def operator_page() -> Response:
        return FileResponse(static / "operator.html", headers=headers)

    if static.is_dir():
        app.mount("/static", StaticFiles(directory=static))


def _add_rater_routes(app: FastAPI, campaign: Campaign) -> None:
    # Verdicts have their own threads, so that they never wait behind media that are being made.
    posts = ThreadPoolExecutor(POST_THREADS, "posts")

    @app.get("/api/me")
    def me(request: Request) -> Response:
        return _json(campaign.me(_sender(campaign, request)))

    @app.get("/api/tasks/next")
    def next_tasks(request: Request) -> Response:
        rater, ahead = _sender(campaign, request), request.query_params.get("ahead", "0")
        if not (ahead.isascii() and ahead.isdigit() and len(ahead) < 4):
            raise Refused(422, "ahead: a number from 0 to 3")
        return _json({"tasks": campaign.next_tasks(rater, int(ahead))})

    @app.post("/api/events")
    async def post_event(request: Request) -> Response:
        def post(body: bytes) -> Response:
            rater = _sender(campaign, request)
            try:
                event = parse_event(body)
            except ValueError as error:
                raise Refused(422, str(error)) from None
            return _json(campaign.post(rater, event))

        body = await _body(request)
        return await asyncio.get_running_loop().run_in_executor(posts, post, body)

    @app.get("/media/{task_id}/{which}")
    def media(request: Request, task_id: str, which: str) -> Response:
        path = campaign.media_file(_sender(campaign, request), task_id, which)
        if path.suffix == ".mp4":
            return FileResponse(path, media_type="video/mp4", headers=NO_STORE)
        # Whole and without a date: a file's date would tell which soundtrack was degraded for a check.
        return Response(path.read_bytes(), media_type="audio/wav", headers=NO_STORE)


def _add_operator_routes(app: FastAPI, campaign: Campaign, base_url: str) -> None:
    view = OperatorView(campaign)

    @app.get("/api/operator/summary")
    def operator_summary(request: Request) -> Response:
        _sender(campaign, request, operator=True)
        return _json(view.summary())

    @app.get("/api/operator/export")
    def export(request: Request) -> Response:
        _sender(campaign, request, operator=True)
        name = request.query_params.get("format", "parquet")
        if name not in FORMATS:
            raise Refused(422, f"format: one of {', '.join(FORMATS)}")
        suffix, media_type = FORMATS[name]
        disposition = {"content-disposition": f'attachment; filename="labels{suffix}"'}
        # Labels that no stage has read yet are exported too.
        workspace = campaign.media.workspace
        ratings, votes = merged(workspace, fold(read_histories(campaign.log).values()))
        by_people = [r for r in ratings if r.source == HUMAN], [v for v in votes if v.source == HUMAN]
        content = render(name, workspace, *by_people)
        return Response(content, media_type=media_type, headers={**NO_STORE, **disposition})

    @app.post("/api/operator/raters")
    async def add_rater(request: Request) -> Response:
        def add(body: bytes) -> Response:
            _sender(campaign, request, operator=True)
            try:
                new = NewRater.model_validate_json(body)
                if new.name in campaign.tokens.names() and not new.renew:
                    raise Refused(409, f"{new.name} has an address; send renew: true to replace it")
                token = campaign.tokens.new_token(new.name)
            except ValidationError as error:
                raise Refused(422, error.errors()[0]["msg"]) from None
            except ValueError as error:
                raise Refused(422, str(error)) from None
            return _json({"name": new.name, "url": f"{base_url}/#token={token}"})

        return await run_in_threadpool(add, await _body(request))


def _sender(campaign: Campaign, request: Request, operator: bool = False) -> str:
    """Return the name of the rater, or of the operator, whose token a request carries. Raises Refused."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    sender = campaign.tokens.who(token.strip()) if scheme.lower() == "bearer" else None
    if sender is None:
        raise Refused(401, "this address is not known here; ask the operator for a new one")
    if operator and sender.role != OPERATOR:
        raise Refused(403, "only the operator may do this")
    if not operator and sender.role == OPERATOR:
        raise Refused(403, "this address is the operator's; raters have their own")
    return sender.name


async def _body(request: Request) -> bytes:
    """Return the JSON text of a request, after its type and size were checked."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, "send application/json")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise Refused(413, f"a request has at most {MAX_BODY} bytes")
    return body


def _json(content: Any) -> Response:
    try:
        text: str | bytes = to_json(content)  # fast: outlines are thousands of numbers
    except ValueError:  # half a surrogate pair in a caption
        text = json.dumps(content)
    return Response(text, media_type="application/json", headers=NO_STORE)


async def _refused(request: Request, error: Any) -> Response:
    headers = {"www-authenticate": "Bearer"} if error.status == 401 else {}
    return JSONResponse({"reason": error.reason}, error.status, headers={**NO_STORE, **headers})


async def _http_error(request: Request, error: Any) -> Response:
    return JSONResponse({"reason": str(error.detail)}, error.status_code, headers=error.headers)


async def _database_error(request: Request, error: Any) -> Response:
    return JSONResponse({"reason": "the database does not answer; nothing was written, try again"}, 503)
