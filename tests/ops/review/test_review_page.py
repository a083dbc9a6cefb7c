"""The review page: sorted by doubt, safe against other pages, and driven by keyboard in a real browser."""

from __future__ import annotations

import http.client
import importlib.util
import itertools
import json
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ops.crawl.raw import TABLE, RawPicture, add_pictures, sample_id
from ops.curate import camera as camera_stage
from ops.curate import review
from ops.curate.camera import label_of
from ops.curate.review import Decision
from ops.review.items import collect, draw
from ops.review.server import Desk, Server
from ops.store import tables
from ops.store.pictures import encode_jpeg, encode_png
from ops.store.tar import TarWriter
from tests.ops.review.browser import CHROMIUM, Browser

COUNT = 6
RESIDUALS = [1.0, 9.0, 3.0, 30.0, 2.0, 4.0]
MOST_DOUBTFUL = [3, 1, 5, 2, 4, 0]


def pose(yaw: float) -> np.ndarray:
    import torch

    from models.camera import pose_on_sphere

    return pose_on_sphere(torch.tensor(np.deg2rad(yaw)), torch.tensor(0.0, dtype=torch.float64)).double().numpy()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Six pictures with cameras, landmarks and masks; their ids."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    photos = [encode_jpeg(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)) for _ in range(COUNT)]
    add_pictures(Path("data/raw/mine"), "mine", "s", (RawPicture(f"{i}.jpg", d) for i, d in enumerate(photos)), 99)
    keys = [sample_id(data) for data in photos]
    labels = Path("data/labels/mine")
    rows = [
        {"id": key, "camera": label_of(pose(10.0 * i), "fixed").tolist(), "yaw": 10.0 * i, "pitch": 0.0, "roll": 0.0,
         "residual": RESIDUALS[i], "distance": 2.7, "kept": i != 3, "reason": "camera_not_found" if i == 3 else None}
        for i, key in enumerate(keys)
    ]  # fmt: skip
    tables.write(labels / "camera.parquet", pa.Table.from_pylist(rows, schema=camera_stage.SCHEMA), "camera")
    quad = [8.0, 8.0, 8.0, 56.0, 56.0, 56.0, 56.0, 8.0]
    write(labels / "align.parquet", [{"id": key, "quad": quad} for key in keys])
    write(labels / "landmarks.parquet", [{"id": key, "points": [32.0, 32.0, 0.0] * 468} for key in keys])
    labels.joinpath("masks").mkdir()
    with TarWriter(labels / "masks/000000.tar") as tar:
        for key in keys[:2]:
            tar.add(key, {"png": encode_png(np.pad(np.full((32, 32), 255, np.uint8), 16))})
    return keys


def write(path: Path, rows: list[dict]) -> None:
    columns = [{**row, "kept": True, "reason": None} for row in rows]
    table = pa.Table.from_pylist(columns)
    reason = table.schema.get_field_index("reason")
    tables.write(path, table.set_column(reason, "reason", pa.nulls(len(rows), pa.string())), path.stem)


@pytest.fixture
def server(project):
    served = Server(Desk(Path()))
    thread = threading.Thread(target=served.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield served
    served.shutdown()
    served.server_close()


def ask(server: Server, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("GET" if body is None else "POST", path, body, named)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, data


def test_the_most_doubtful_come_first_whatever_the_unit_of_their_doubt(project):
    assert [item.id for item in collect(Path())] == [project[i] for i in MOST_DOUBTFUL]
    write(
        Path("data/labels/mine/parse.parquet"),
        [{"id": key, "disagreement": 0.9 - 0.1 * i} for i, key in enumerate(project)],
    )
    items = collect(Path())
    assert {items[0].id, items[1].id} == {project[0], project[3]}, "first of one doubt or of the other"
    assert items[0].scores.keys() == {"camera residual", "parse disagreement"}
    assert all(a.doubt >= b.doubt for a, b in itertools.pairwise(items))


def test_the_drawing_shows_mask_axes_and_the_corrected_pose(project):
    items = {item.id: item for item in collect(Path())}
    plain = draw(Path(), items[project[0]])
    assert plain.shape == (320, 320, 3)
    turned = draw(Path(), items[project[0]], Decision("pose", 90, 0, 0))
    assert (plain != turned).any()
    yellow = np.array([255, 200, 0])
    assert (np.abs(plain.astype(int) - yellow).sum(-1) < 60).sum() > 100, "the outline of the mask"


def test_only_who_has_the_secret_and_names_this_host_is_answered(server):
    token, port = server.token, server.server_address[1]
    assert server.server_address[0] == "127.0.0.1"
    assert ask(server, f"/?token={token}")[0] == 200
    assert ask(server, "/")[0] == 403
    assert ask(server, f"/items?token={token}x")[0] == 403
    assert ask(server, f"/items?token={token}", Host=f"evil.example:{port}")[0] == 403
    body = json.dumps({"id": next(iter(server.desk.items)), "decision": {"decision": "reject"}}).encode()
    assert ask(server, "/decide", body)[0] == 403
    assert ask(server, "/decide", body, X_Token=token, Origin="https://evil.example")[0] == 403
    assert ask(server, f"/decide?token={token}", body)[0] == 403, "a form of another site cannot set a header"
    assert review.read() == {}
    assert ask(server, "/decide", body, X_Token=token, Origin=f"http://127.0.0.1:{port}")[0] == 200


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"{}", b'{"id": "x", "decision": null}', b'{"id": "KEY", "decision": {"decision": "maybe"}}',
     b'{"id": "KEY", "decision": {"decision": "pose", "yaw": "east"}}', b'{"id": "KEY", "decision": 3}',
     b'{"id": "KEY", "decision": {"decision": "pose", "yaw": 1e999}}', b'{"id": ["KEY"], "decision": null}',
     b"[" * 9000, b" " * 20000],
)  # fmt: skip
def test_nonsense_is_refused_and_changes_nothing(server, project, body):
    code, answer = ask(server, "/decide", body.replace(b"KEY", project[0].encode()), X_Token=server.token)
    assert code == 400
    assert json.loads(answer)["error"]
    assert review.read() == {}


@pytest.mark.parametrize("path", ["/nothing", "/picture?id=nobody", "/picture?id=../../etc/passwd", "/../README.md"])
def test_there_is_nothing_else(server, path):
    joined = "&" if "?" in path else "?"
    assert ask(server, f"{path}{joined}token={server.token}")[0] == 404


def test_a_picture_that_is_gone_says_so(server, project):
    Path("data/raw/mine", TABLE).unlink()
    Path("data/raw/mine/000000.tar").unlink()
    code, answer = ask(server, f"/picture?token={server.token}&id={project[0]}")
    assert code == 400
    assert b"error" in answer


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.skipif(importlib.util.find_spec("websockets") is None, reason="the package websockets is not installed")
def test_deciding_by_keyboard_in_a_browser(server, project, tmp_path):
    order = [project[i] for i in MOST_DOUBTFUL]
    with Browser(tmp_path / "profile") as browser:
        browser.call("Page.enable")
        browser.call("Page.navigate", url=server.url)
        shown = browser.until(lambda: browser.run("[...document.querySelectorAll('figure')].map(f => f.dataset.id)"))
        assert shown == order
        loaded = "[...document.images].every(i => i.complete && i.naturalWidth === 320)"
        browser.until(lambda: browser.run(loaded))

        browser.key("a")  # the first
        browser.key("r")  # the second, where the mark has moved, however fast one types
        browser.until(lambda: {order[0], order[1]} <= review.read().keys())
        browser.until(lambda: "2 of 6 decided" in browser.run("document.getElementById('count').textContent"))
        browser.key("ArrowRight")  # over the third to the fourth
        browser.key("p")
        browser.key("ArrowRight")
        browser.key("ArrowUp")
        browser.key("]")
        assert "pose" in browser.run("document.querySelector('.here figcaption').innerText")
        browser.key("Enter")
        browser.until(lambda: order[3] in review.read())
        browser.key("p")  # the fifth: turned, and left as it was
        browser.key("ArrowLeft")
        browser.key("Escape")
        browser.key("ArrowLeft")
        browser.key("u")  # the pose of the fourth is taken back, then given again
        browser.until(lambda: order[3] not in review.read())
        browser.key("p")
        browser.key("ArrowRight")
        browser.key("Enter")
        browser.until(lambda: order[3] in review.read())
        yaw = 10.0 * MOST_DOUBTFUL[3]
        assert review.read() == {
            order[0]: Decision("accept"),
            order[1]: Decision("reject"),
            order[3]: Decision("pose", yaw + 5, 0),
        }
        browser.key("o")
        browser.until(lambda: browser.run("document.querySelectorAll('figure').length") == 3)
        assert browser.run("document.getElementById('error').textContent") == ""
        assert "3 of 6 decided" in browser.run("document.getElementById('count').textContent")
    # What was decided changes the labels.
    table = tables.read(Path("data/labels/mine/camera.parquet"))
    after = {row["id"]: row for row in review.apply(table, review.read()).to_pylist()}
    assert after[order[0]]["kept"], "a rejected camera that was accepted by hand"
    assert not after[order[1]]["kept"]
    assert after[order[3]]["yaw"] == yaw + 5
