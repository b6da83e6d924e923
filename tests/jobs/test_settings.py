"""The settings of a sweep: every combination, in a folder of its own."""

import itertools
import re

import pytest

from furs_jax.errors import ConfigError
from furs_jax.jobs.settings import folder_name, split_values
from launch import sweep
from tests.launch.tiny_sweep import plan_of, planned


def test_every_combination_has_a_readable_folder(tmp_path):
    options = sweep.parse(
        [
            "--config=configs/digits.py",
            f"--workdir={tmp_path}",
            "--config.furs.draws=2",
            "--sweep.width_multiplier=0.5,1.0",
            "--sweep.train.epochs=3,4",
        ]
    )
    settings = plan_of(options)
    assert [setting.name for setting in settings] == [
        f"width_multiplier={width},train.epochs={epochs}"
        for width in ("0.5", "1.0")
        for epochs in (3, 4)
    ]
    last = settings[-1].config
    assert (last["width_multiplier"], last["train"]["epochs"], last["furs"]["draws"]) == (1.0, 4, 2)


CONFIG = """
from configs.digits import get_config
def sweep():
    for width in (0.5, 1.0):
        yield {"width_multiplier": width, "final.seeds": 2}
"""


def test_a_config_s_own_sweep_is_run_with_the_command_line_s(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(CONFIG)
    options = sweep.parse([f"--config={file}:smoke", f"--workdir={tmp_path}/w", "--sweep.seed=0,1"])
    names = [setting.name for setting in plan_of(options)]
    assert names[1] == "width_multiplier=0.5,final.seeds=2,seed=1"
    assert len(names) == 4
    options.grid = {"final.seeds": ["3"]}
    with pytest.raises(ConfigError, match="final.seeds is swept by the config and on"):
        plan_of(options)


def test_folders_of_odd_and_long_values_have_names_of_their_own(tmp_path):
    long = ["(" + ",".join([width] * 108) + ")" for width in ("16", "16", "24")]
    long[1] = long[1].replace("16)", "17)")  # differs at its end only
    texts = [*long, "(8,12)", "(8,1,2)", "a/b", "a_b", "../..", "a'b\"c", "a b", "ä", "1,b=2", "1"]
    for first, second in itertools.product(texts, repeat=2):
        for swept in ({"channels": first}, {"a": first, "b": second}):
            name = folder_name(swept)
            assert re.fullmatch(r"[A-Za-z0-9_.,=~+-]+", name)
            assert len(f"{name}.log") <= 143
    names = {folder_name({"a": a, "b": b}) for a in texts for b in texts}
    assert len(names) == len(texts) ** 2
    assert folder_name({"a": "1,b=2"}) != folder_name({"a": "1", "b": "2"})
    many = {f"an_option_of_a_long_name_{i}": "1" for i in range(9)}
    assert len(folder_name(many)) < 143
    assert folder_name(many) != folder_name(many | {"an_option_of_a_long_name_8": "2"})

    vectors = [f"({','.join([width] * 6)})" for width in ("1000", "1001")]
    first, second = planned(tmp_path, f"--sweep.channels={','.join(vectors)}")
    assert first.config["channels"] == [1000] * 6
    assert first.name.startswith("channels=_1000,1000,")
    assert first.workdir != second.workdir


def test_the_same_setting_twice_is_refused(tmp_path):
    for values in ("0.5,0.5", "0.5,0.50"):
        with pytest.raises(ConfigError, match="two settings of the sweep are the same"):
            planned(tmp_path, f"--sweep.width_multiplier={values}")


def test_a_sweep_s_paths_are_of_the_folder_that_one_calls_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "mine.py").write_text(CONFIG)
    arguments = ["--config", "mine.py:smoke", "--workdir", "~/s", "--config.init_from", "a b"]
    options = sweep.parse([*arguments, "--sweep.kd.teacher", "original,t"])
    settings = plan_of(options)
    assert len(settings) == 4
    assert (
        settings[1].workdir == tmp_path / "home/s/width_multiplier=0.5,final.seeds=2,kd.teacher=t"
    )
    assert settings[1].arguments == (
        f"--config={tmp_path}/mine.py:smoke",
        f"--config.init_from={tmp_path}/a b",
        "--config.width_multiplier=0.5",
        "--config.final.seeds=2",
        f"--config.kd.teacher={tmp_path}/t",
        f"--workdir={settings[1].workdir}",
    )
    assert settings[0].config["kd"]["teacher"] == "original"


def test_values_are_split_outside_brackets():
    assert split_values("0.5,(1,2),[3,4]") == ["0.5", "(1,2)", "[3,4]"]
