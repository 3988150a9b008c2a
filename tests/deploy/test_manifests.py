"""KEDA watches the lists that jobs are put in; systemd starts verbs that exist."""

from __future__ import annotations

import configparser

import pytest
import yaml
from rq import Queue

from deploy.compose import ROOT
from tator_ml.jobs.device import queue_name
from tator_sdk.cli import load_commands


def test_keda_watches_our_queues() -> None:
    secret, authentication, scaled = yaml.safe_load_all((ROOT / "deploy" / "keda.yaml").read_text())
    triggers = scaled["spec"]["triggers"]
    watched = {one["metadata"]["listName"] for one in triggers}
    assert watched == {Queue.redis_queue_namespace_prefix + queue_name(device) for device in (None, "cpu")}
    assert {one["authenticationRef"]["name"] for one in triggers} == {authentication["metadata"]["name"]}
    assert authentication["spec"]["secretTargetRef"][0]["name"] == secret["metadata"]["name"]
    assert all(isinstance(value, str) for one in triggers for value in one["metadata"].values()), "KEDA takes strings"


@pytest.mark.parametrize("part", ["engine", "web", "worker"])
def test_units_start_verbs_that_exist(part: str) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read(ROOT / "deploy" / "systemd" / f"tator-{part}.service")
    verb = unit["Service"]["ExecStart"].split()[-1]
    assert verb in {one.name or one.callback.__name__ for one in load_commands().registered_commands if one.callback}
