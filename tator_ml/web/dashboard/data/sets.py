"""The registry of data sets: what there is, whether it is still the same, what it looks like."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flask import Blueprint, Response, flash, redirect, render_template, request, send_file, url_for
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as AnyResponse

from tator_ml.web.access import visitor
from tator_ml.web.dashboard.data.parts import Data, may_see_set, project_of, sample_picture
from tator_ml.web.dashboard.forms import read_request
from tator_ml.web.dashboard.starting import start
from tator_ml.web.dashboard.zips import zipped
from tator_sdk.data_requests import Registration
from tator_sdk.datasets import TYPES, DatasetRecord, RegistryError
from tator_sdk.errors import TatorError
from tator_sdk.formats.writing import written_by_tator
from tator_sdk.looking import read_states

STATES = {"unchanged": "unchanged", "changed": "changed since", "gone": "gone", "": "being compared"}


@dataclass(frozen=True)
class Row:
    """A data set as the page lists it; ``state`` is empty while it is not known."""

    record: DatasetRecord
    project: str
    state: str

    @property
    def objects(self) -> int:
        """Shapes of all classes."""
        return sum(self.record.classes.values())


def add(routes: Blueprint, data: Data) -> None:
    """Routes of the registry."""
    _add_list(routes, data)
    _add_one(routes, data)
    _add_changing(routes, data)


def _add_list(routes: Blueprint, data: Data) -> None:
    def rows() -> str:
        states = read_states(data.dashboard.settings.home)
        seen = data.sets_seen()
        listed = [Row(one, data.name_of(project_of(one)), _state(one, states.get(one.id, {}))) for one in seen]
        return render_template("dashboard/data/rows.html", rows=listed, states=STATES)

    @routes.get("/data", endpoint="data")
    def all_sets() -> str:
        if data.sets_seen():
            data.errands.send("states")
        return render_template("dashboard/data/page.html", rows=rows(), types=TYPES, jobs=data.recent(["register"]))

    @routes.get("/data/live")
    def data_live() -> Response:
        return data.dashboard.live.stream(f"data:{visitor().sight}", lambda: {"sets": rows()})

    @routes.post("/data/add")
    def data_add() -> AnyResponse:
        visitor().require_administrator()
        wanted = read_request(Registration, request.form, leave_out=("origin",))
        return _launched(data, wanted)


def _add_one(routes: Blueprint, data: Data) -> None:
    @routes.get("/data/set/<name>")
    def data_set(name: str) -> str:
        record = _seen(data, name)
        looked = data.pictures_of(record) is not None
        states = read_states(data.dashboard.settings.home)
        state = _state(record, states.get(record.id, {}))
        ours = written_by_tator(Path(record.path)) is not None
        return render_template(
            "dashboard/data/set.html", record=record, state=state, states=STATES, ours=ours, pictures=pictures(record),
            project=data.name_of(project_of(record)), looked=looked,
        )  # fmt: skip

    def pictures(record: DatasetRecord) -> str:
        return render_template("dashboard/data/pictures.html", record=record, look=data.pictures_of(record))

    @routes.get("/data/set/<name>/live")
    def data_set_live(name: str) -> Response:
        record = _seen(data, name)
        return data.dashboard.live.stream(f"data-set:{record.id}", lambda: {"pictures": pictures(record)})

    @routes.get("/data/set/<name>/sample/<file>")
    def data_set_sample(name: str, file: str) -> Response:
        return sample_picture(data.look_folder(_seen(data, name)), file)

    @routes.get("/data/set/<name>/download")
    def data_set_download(name: str) -> Response:
        record = _seen(data, name)
        path = Path(record.path)
        if not path.exists():
            raise NotFound(f"There is nothing at the place of '{record.id}' any more.")
        if path.is_file():
            answer = send_file(path, as_attachment=True, download_name=path.name)
        else:
            answer = Response(zipped(path), mimetype="application/zip")
            answer.headers["Content-Disposition"] = f'attachment; filename="{record.id}.zip"'
        return answer


def _add_changing(routes: Blueprint, data: Data) -> None:
    @routes.post("/data/set/<name>/renew")
    def data_set_renew(name: str) -> AnyResponse:
        record = _seen(data, name)
        origin = str(record.source.get("origin") or "")
        return _launched(
            data, Registration(path=Path(record.path), type=record.type, project=project_of(record), origin=origin)
        )

    @routes.post("/data/set/<name>/forget")
    def data_set_forget(name: str) -> AnyResponse:
        record = _seen(data, name)
        data.registry.forget(record)
        flash(f"'{record.id}' is off the list; its files stay where they are.", "good")
        return redirect(url_for("dashboard.data"))

    @routes.post("/data/set/<name>/remove")
    def data_set_remove(name: str) -> AnyResponse:
        record = _seen(data, name)
        try:
            data.registry.remove_files(record)
        except RegistryError as error:
            flash(str(error), "error")
            return redirect(url_for("dashboard.data_set", name=record.id))
        flash(f"The {record.pictures} pictures and labels of '{record.id}' are removed.", "good")
        return redirect(url_for("dashboard.data"))


def _launched(data: Data, wanted: Registration) -> AnyResponse:
    if not wanted.path.exists():
        raise TatorError(f"There is nothing at {wanted.path}.")
    return start(data.dashboard.settings, wanted, "data_job")


def _seen(data: Data, name: str) -> DatasetRecord:
    """A data set that the visitor may see.

    Raises:
        NotFound: there is none of that id.
        Forbidden: it is not theirs.
    """
    record = next((one for one in data.registry.list() if one.id == name), None)
    if record is None:
        raise NotFound(f"There is no data set '{name}'; the list of data sets shows all.")
    if not may_see_set(visitor(), record):
        visitor().require(project_of(record))
    return record


def _state(record: DatasetRecord, known: dict[str, str]) -> str:
    if not Path(record.path).exists():
        return "gone"
    return known.get("state", "") if known.get("signature") == record.signature else ""
