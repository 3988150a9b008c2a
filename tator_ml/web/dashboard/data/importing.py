"""From a dropped archive to a project or the registry: sent, looked at, and only then imported."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from flask import Blueprint, Response, current_app, flash, jsonify, redirect, render_template, request, url_for
from flask_wtf.csrf import validate_csrf
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge
from werkzeug.wrappers import Response as AnyResponse

from tator_ml.launch import launch
from tator_ml.web.access import visitor
from tator_ml.web.dashboard.data.parts import Data, sample_picture
from tator_ml.web.dashboard.data.receiving import receive
from tator_ml.web.dashboard.data.uploads import Upload
from tator_ml.web.dashboard.forms import Refused, read_request, request_form
from tator_ml.web.dashboard.starting import start
from tator_ml.web.dashboard.words import as_bytes
from tator_sdk.data_requests import Registration, Undo
from tator_sdk.errors import TatorError
from tator_sdk.formats.archive import seal
from tator_sdk.formats.writing import MARKER, safe_name
from tator_sdk.import_record import ImportRecord, ImportRecords
from tator_sdk.looking import Look, progress_of
from tator_sdk.requests import DataImport

FIXED = ("path", "kind", "project", "local_files", "url_prefix", "names", "images")
"""What the upload decides."""


@dataclass(frozen=True)
class Imported:
    """An import that was begun, for the list."""

    record: ImportRecord
    project: str
    name: str

    @property
    def pictures(self) -> int:
        """Pictures whose shapes it brought."""
        return int(self.record.summary.get("created", 0))


def add(routes: Blueprint, data: Data) -> None:
    """Routes of imports."""
    _add_sending(routes, data)
    _add_looking(routes, data)
    _add_deciding(routes, data)


def _add_sending(routes: Blueprint, data: Data) -> None:
    settings = data.dashboard.settings

    @routes.get("/data/import")
    def data_import() -> str:
        chosen = data.dashboard.chosen_project()
        return render_template(
            "dashboard/data/import.html", chosen=chosen,
            projects=data.project_choices("only look, no project yet", chosen),
            uploads=data.uploads.list(visitor()), imports=_imports(data), limit=settings.upload_max_bytes,
        )  # fmt: skip

    @routes.post("/data/import")
    def data_import_send() -> AnyResponse:
        new, archive = data.uploads.begin()
        who, project = visitor(), None

        def admit(fields: dict[str, str]) -> None:
            nonlocal project
            _require_token(fields.get("csrf_token", ""))
            project = _project(fields.get("project", ""))
            if project is None and not who.administrator:
                raise BadRequest("Choose the project that it is for.")

        try:
            _, name = receive(request, archive, settings.upload_max_bytes, admit)
        except RequestEntityTooLarge as error:
            data.uploads.throw_away(new)
            most = as_bytes(settings.upload_max_bytes)
            raise RequestEntityTooLarge(
                f"The archive is larger than the {most} that this backend takes (TATOR_UPLOAD_MAX_BYTES)."
            ) from error
        except BaseException:
            data.uploads.throw_away(new)
            raise
        upload = data.uploads.complete(new, name, who, project)
        _look(data, upload)
        to = url_for("dashboard.data_import_upload", upload_id=upload.id)
        return jsonify(to=to) if request.accept_mimetypes.best == "application/json" else redirect(to)

    routes.record_once(lambda state: state.app.extensions["csrf"].exempt(data_import_send))  # asked while it comes


def _add_looking(routes: Blueprint, data: Data) -> None:
    def standing(upload: Upload) -> tuple[bool, Look | None]:
        """Whether a look at it goes on, and what was found; None where that was for the project before."""
        going, look = data.errands.runs(*_errand(data, upload)), Look.read(data.uploads.folder_of(upload))
        return going, None if going and look is not None and look.project != upload.project else look

    def found(upload: Upload) -> str:
        going, look = standing(upload)
        form = None
        if look is not None and look.report is not None:
            form = request_form(DataImport, leave_out=FIXED)
        return render_template(
            "dashboard/data/look.html", upload=upload, look=look, form=form,
            projects=data.project_choices(also=upload.project),
            project=data.name_of(upload.project), progress=progress_of(data.uploads.folder_of(upload)),
            going=going,
        )  # fmt: skip

    @routes.get("/data/import/<upload_id>")
    def data_import_upload(upload_id: str) -> str:
        upload = data.uploads.get(upload_id, visitor())
        looked = standing(upload)[1] is not None
        return render_template("dashboard/data/upload.html", upload=upload, found=found(upload), looked=looked)

    @routes.get("/data/import/<upload_id>/live")
    def data_import_live(upload_id: str) -> Response:
        upload = data.uploads.get(upload_id, visitor())
        who = visitor().name
        return data.dashboard.live.stream(f"upload:{upload.id}:{who}", lambda: {"found": found(upload)})

    @routes.get("/data/import/<upload_id>/sample/<file>")
    def data_import_sample(upload_id: str, file: str) -> Response:
        return sample_picture(data.uploads.folder_of(data.uploads.get(upload_id, visitor())), file)

    @routes.post("/data/import/<upload_id>/look")
    def data_import_look(upload_id: str) -> AnyResponse:
        upload = data.uploads.get(upload_id, visitor())
        _refuse_used(upload)
        project = _project(request.form.get("project", ""))
        _look(data, data.uploads.look_anew(upload, project))
        return redirect(url_for("dashboard.data_import_upload", upload_id=upload.id))


def _add_deciding(routes: Blueprint, data: Data) -> None:
    settings = data.dashboard.settings

    @routes.post("/data/import/<upload_id>/start")
    def data_import_start(upload_id: str) -> AnyResponse:
        upload, look = _looked(data, upload_id)
        if upload.project is None or look.report is None:
            raise TatorError("Choose a project and look at what would happen first.")
        if look.project != upload.project:
            raise TatorError("What was looked at is an import into another project; look once more.")
        visitor().require(upload.project)
        try:
            wanted = read_request(
                DataImport, request.form, leave_out=FIXED, path=Path(look.root), kind=look.kind, project=upload.project
            )
        except Refused as error:
            flash(str(error), "error")
            return redirect(url_for("dashboard.data_import_upload", upload_id=upload.id))
        (job, *_) = launch(settings, wanted)
        data.uploads.keep(replace(upload, job=job.id))
        return redirect(url_for("dashboard.data_job", job_id=job.id))

    @routes.post("/data/import/<upload_id>/keep")
    def data_import_keep(upload_id: str) -> AnyResponse:
        upload, look = _looked(data, upload_id)
        _refuse_used(upload)
        visitor().require(upload.project)
        path = _moved(settings.home / "sets", upload, look)
        try:
            (job, *_) = launch(settings, Registration(path=path, project=upload.project, origin=upload.name))
        except TatorError:  # it is still the upload that it was
            (path / MARKER).unlink(missing_ok=True)
            path.rename(look.root)
            raise
        data.uploads.throw_away(upload.id)
        return redirect(url_for("dashboard.data_job", job_id=job.id))

    @routes.post("/data/import/<upload_id>/discard")
    def data_import_discard(upload_id: str) -> AnyResponse:
        upload = data.uploads.get(upload_id, visitor())
        if reader := data.uploads.reader_of(upload.id):
            raise TatorError(f"{reader} reads {upload.name}; cancel it, or wait until it has ended.")
        data.uploads.throw_away(upload.id)
        flash(f"{upload.name} is thrown away; what was imported from it stays.", "good")
        return redirect(url_for("dashboard.data_import"))

    @routes.post("/data/undo")
    def data_undo() -> AnyResponse:
        project = _project(request.form.get("project", ""))
        if project is None:
            raise BadRequest("Say which project it was done to.")
        try:
            wanted = read_request(Undo, request.form, project=project)
        except Refused as error:
            raise BadRequest("This is no id of an import or of a job that can be taken back.") from error
        return start(settings, wanted, "data_job")


def _require_token(token: str) -> None:
    """Let a form pass that this dashboard made; asked by hand, as the whole form is not read before.

    Raises:
        BadRequest: it did not.
    """
    if not current_app.config.get("WTF_CSRF_ENABLED", True):
        return
    try:
        validate_csrf(token)
    except ValueError as error:
        raise BadRequest(f"{error} Load the page again and send the file once more.") from error


def _project(given: str) -> int | None:
    """The project that a form names, if the visitor may see it; None without one.

    Raises:
        Forbidden: it is not theirs.
    """
    if not (given.isascii() and given.isdigit()):
        return None
    visitor().require(int(given))
    return int(given)


def _errand(data: Data, upload: Upload) -> list[str]:
    project = [] if upload.project is None else [str(upload.project)]
    return ["upload", str(data.uploads.folder_of(upload).resolve()), *project]


def _look(data: Data, upload: Upload) -> None:
    data.errands.send(*_errand(data, upload))


def _looked(data: Data, upload_id: str) -> tuple[Upload, Look]:
    """An upload with what was found in it.

    Raises:
        TatorError: nobody has looked at it yet, or it cannot be used.
    """
    upload = data.uploads.get(upload_id, visitor())
    look = Look.read(data.uploads.folder_of(upload))
    if look is None or look.error:
        raise TatorError("It is not known yet what this archive holds; wait until it has been looked at.")
    return upload, look


def _refuse_used(upload: Upload) -> None:
    """Let nothing be moved or looked at anew that a job reads.

    Raises:
        TatorError: one may.
    """
    if upload.job:
        raise TatorError(f"{upload.name} is being imported, or was, by {upload.job}; send it again for anything else.")


def _moved(folder: Path, upload: Upload, look: Look) -> Path:
    """Where an upload lies as a data set of its own, with a marker, so that it can be removed from the list."""
    folder.mkdir(parents=True, exist_ok=True)
    stem, number = safe_name(Path(upload.name).stem), 1
    target = folder / stem
    while target.exists():
        number += 1
        target = folder / f"{stem}-{number}"
    Path(look.root).rename(target)
    seal(target)
    kind = "coco" if look.kind == "coco" else f"yolo-{'auto' if look.kind == 'yolo' else look.kind}"
    about = {"type": kind, "classes": look.classes, "pictures": look.splits, "source": {"origin": upload.name}}
    (target / MARKER).write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return target


def _imports(data: Data) -> list[Imported]:
    """The imports into projects that the visitor may see, the newest first."""
    who = visitor()
    records = [one for one in ImportRecords(data.dashboard.settings).list() if who.may_see(one.project)]
    names = {str(data.uploads.folder_of(one).resolve()): one.name for one in data.uploads.list(who)}
    made = []
    for one in reversed(records[-50:]):
        path = Path(str(one.request.get("path", "")))
        name = next((names[str(place)] for place in (path, *path.parents) if str(place) in names), path.name)
        made.append(Imported(one, data.name_of(one.project), name))
    return made
