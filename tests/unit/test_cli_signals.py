"""What a command says that a signal ended before its flow had begun."""

from __future__ import annotations

import json

import pytest

from deployments.cli import app, output


@pytest.mark.parametrize(
    ("raised", "code", "kind"),
    [(output.Terminated, 143, "Terminated"), (KeyboardInterrupt, 130, "Interrupted")],
)
def test_a_signal_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    raised: type[BaseException],
    code: int,
    kind: str,
) -> None:
    def stopped(_arguments: object) -> int:
        raise raised

    monkeypatch.setattr(app, "_dispatch", stopped)
    assert app.run(["network", "delete", "lab", "--json"]) == code
    said = capsys.readouterr()
    assert json.loads(said.out)["error"] == kind
    assert "Traceback" not in said.err
