"""What people do with models: activate, roll back, delete, take in and give out; and how a project answers."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, flash, redirect, request, send_file, url_for
from werkzeug.exceptions import BadRequest
from werkzeug.utils import secure_filename
from werkzeug.wrappers import Response as AnyResponse

from tator_ml.projects import ASSISTS, KeptWords
from tator_ml.runs import BASE, EXAMPLES_FILE
from tator_ml.web.access import visitor
from tator_ml.web.dashboard.models.catalogue import Catalogue
from tator_ml.web.dashboard.models.looking import checked
from tator_ml.web.dashboard.models.versions import TITLES, Version, facts_of_head
from tator_ml.web.dashboard.page import Dashboard
from tator_ml.web.dashboard.zips import zipped
from tator_sdk.errors import TatorError

LONGEST_WORDS = 10_000


def add(routes: Blueprint, dashboard: Dashboard, catalogue: Catalogue) -> None:
    """Routes that change something, and the download."""

    @routes.post("/models/<role>/<name>/activate")
    def models_activate(role: str, name: str) -> AnyResponse:
        project = _project()
        version = catalogue.require(visitor(), catalogue.version(checked(role), name))
        try:
            catalogue.activate(version, project, visitor().name)
        except TatorError as error:
            flash(str(error), "error")
            return redirect(url_for("dashboard.models_one", role=role, name=name))
        held_back = bool(version.gate) and not version.gate.get("activate")
        aside = f" After its training it was held back: {version.gate.get('reason')}." if held_back else ""
        what = f"The default {TITLES[version.role]}" if version.id == BASE else version.id
        flash(f"{what} is active in project {project}.{aside}", "good")
        return redirect(url_for("dashboard.models", project=project))

    @routes.post("/models/<role>/rollback")
    def models_rollback(role: str) -> AnyResponse:
        project = _project()
        try:
            name = catalogue.roll_back(checked(role), project, visitor().name)
            flash(f"Project {project} is back at {'the default' if name == BASE else name}.", "good")
        except TatorError as error:
            flash(str(error), "error")
        return redirect(url_for("dashboard.models", project=project))

    @routes.post("/models/<role>/<name>/delete")
    def models_delete(role: str, name: str) -> AnyResponse:
        version = catalogue.version(checked(role), name)
        visitor().require(version.project)
        try:
            catalogue.remove(version)
        except TatorError as error:
            flash(str(error), "error")
            return redirect(url_for("dashboard.models_one", role=role, name=name))
        flash(f"{version.id} is deleted.", "good")
        return redirect(url_for("dashboard.models", project=version.project))

    @routes.get("/models/<role>/<name>/download")
    def models_download(role: str, name: str) -> Response:
        version = catalogue.require(visitor(), catalogue.version(checked(role), name))
        if version.role != "head" and version.folder is not None:  # gigabytes: sent while they are packed
            answer = Response(zipped(version.folder, {EXAMPLES_FILE}), mimetype="application/zip")
            answer.headers["Content-Disposition"] = f'attachment; filename="{version.id}.zip"'
            return answer
        folder = Path(tempfile.mkdtemp(prefix="tator-model-"))
        try:
            path = catalogue.pack(version, folder / f"{version.id}.zip")
            answer = send_file(path, "application/zip", as_attachment=True, download_name=path.name)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        answer.call_on_close(lambda: shutil.rmtree(folder, ignore_errors=True))
        return answer

    @routes.post("/models/add")
    def models_add() -> AnyResponse:
        given = request.form.get("project", "")
        project = int(given) if given.isascii() and given.isdigit() else None
        visitor().require(project)
        file = request.files.get("archive")
        if file is None or not file.filename:
            flash("Choose an archive: a zip that was downloaded from a model's page.", "error")
            return redirect(url_for("dashboard.models", project=project))
        with tempfile.TemporaryDirectory(prefix="tator-model-") as folder:
            path = Path(folder) / (secure_filename(file.filename) or "model.zip")
            file.save(path)
            try:
                version = catalogue.take_in(path, project)
                _check_encoder(version)
            except TatorError as error:
                flash(str(error), "error")
                return redirect(url_for("dashboard.models", project=project))
        flash(f"{version.id} is here. It answers once it is activated.", "good")
        return redirect(url_for("dashboard.models_one", role=version.role, name=version.id))

    def _check_encoder(version: Version) -> None:
        """Its encoder is loaded from a hub or a folder once it answers: which one is an administrator's choice.

        Raises:
            TatorError: a member brought a head with another; it is not kept.
        """
        encoder = facts_of_head(version).get("Encoder")
        if not visitor().administrator and encoder not in {dashboard.settings.encoder, "starter"}:
            catalogue.remove(version)
            raise TatorError(
                f"This head stands on the encoder {encoder}, which this installation does not use; an administrator "
                "can take it in."
            )

    @routes.post("/models/choices")
    def models_choices() -> AnyResponse:
        project = _project()
        try:
            dashboard.services.choose(project, **_choices())
            flash(f"Project {project} answers so from the next request on.", "good")
        except TatorError as error:
            flash(str(error), "error")
        return redirect(url_for("dashboard.models", project=project))


def _project() -> int:
    """The project that a form is about.

    Raises:
        Forbidden: it is not theirs.
        BadRequest: there is none.
    """
    given = request.form.get("project", "")
    if not (given.isascii() and given.isdigit() and int(given)):
        raise BadRequest("Choose a project first.")
    visitor().require(int(given))
    return int(given)


def _choices() -> dict[str, Any]:
    """What was chosen; an empty choice is the default.

    Raises:
        BadRequest: something else was sent.
    """
    form = request.form
    assists, after, words = form.get("assists", ""), form.get("train_after", "").strip(), form.get("words", "").strip()
    if after and not (after.isascii() and after.isdigit() and int(after) <= 1_000_000):
        raise BadRequest(f"'{after}' is no number of annotations; 0 trains never, nothing is the default.")
    if len(words) > LONGEST_WORDS:
        raise BadRequest(f"Words to be kept are {LONGEST_WORDS} characters at most.")
    kept = KeptWords(words, form.get("words_field", "")) if words or form.get("keep_words") else None
    chosen = tuple(one for one in assists.split(",") if one in ASSISTS)
    return {
        "segmenter": form.get("segmenter") or None,
        "assists": chosen if assists else None,
        "output": form.get("output") or None,
        "preload": {"yes": True, "no": False}.get(form.get("preload", "")),
        "train_after": int(after) if after else None,
        "words": kept,
    }
