"""The page: what it tells, when, and that no name in a run's files means anything to a browser."""

import csv
import datetime
import fcntl
import json
import os
import re
import shlex
import xml.etree.ElementTree as ElementTree

import pytest

from furs_jax.config_files import default_config
from furs_jax.options.parse import as_record, override, parse
from furs_jax.report.__main__ import main
from furs_jax.report.command import run_command
from furs_jax.report.page import PAGE, Moment, page, write_page
from furs_jax.report.run_record import read_run
from tests.fake_runs import fake_run, fake_training, rewrite
from tests.report.parsed import Parsed

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
WORTH, BOTH, COMMAND = "Was it worth it?", "Original and searched", "The command"
HOSTILE = ("<img src=x onerror=alert(1)>", "=1+1", "x" * 200, '"><script>alert(1)</script>')


def parsed(run, runs=False) -> Parsed:
    return Parsed(page(run, Moment(NOW, runs)))


def test_the_figures_are_the_result_s(tmp_path):
    run = fake_run(tmp_path / "r", start=[9, 7] * 6, rounds=3)
    result, found = run.result, parsed(run)
    rows = {row[0]: row[1:] for row in found.cells[BOTH]}
    for name in ("original", "start", "searched"):
        entry = result[name]
        mean, half = (100 * value for value in entry["top1"])
        told = [f"{entry['macs']:,}", f"{entry['params']:,}", f"{mean:.2f} ± {half:.2f}"]
        assert rows[name][:3] == told
        assert " ".join(map(str, entry["channels"])) in found.texts[BOTH]
    mean, half = (100 * value for value in result["difference"]["top1"])
    assert rows["searched \N{MINUS SIGN} original"][2] == f"{mean:+.2f} ± {half:.2f}"
    assert f"{mean:+.2f} points" in found.texts[WORTH]
    assert f"interval {mean - half:+.2f} to {mean + half:+.2f}" in found.texts[WORTH]
    widths = [list(map(int, row[1:])) for row in found.cells["Widths over the rounds"][1:]]
    vectors = [run.rounds[0]["channels"], *(line["next_channels"] for line in run.rounds)]
    assert widths == [list(site) for site in zip(*vectors, strict=True)]
    assert f"{result['budget']:,} MACs" in found.texts["Budget"]


def test_every_site_of_every_round_has_its_fur(tmp_path):
    run = fake_run(tmp_path / "r", rounds=3)
    html = page(run, Moment(NOW, False))
    dots = re.findall(r"<title>([^<]*): (\S+) ± (\S+); (\d+) channels, then (\d+)</title>", html)
    expected = [
        (f"{1e6 * fur:.4g}", f"{1e6 * error:.4g}", str(c), str(d))
        for line in run.rounds
        for fur, error, c, d in zip(
            *(line[key] for key in ("furs", "furs_stderr", "channels", "next_channels")),
            strict=True,
        )
    ]
    assert sorted(dot[1:] for dot in dots) == sorted(expected)


def test_a_page_needs_no_other_file_and_no_script(tmp_path):
    tags = parsed(fake_run(tmp_path / "r")).tags
    assert not {"script", "link", "img", "iframe", "object", "image", "use"} & {t for t, _ in tags}
    assert not {"src", "href", "srcset"} & {name for _, given in tags for name in given}
    policy = [given["content"] for _, given in tags if "http-equiv" in given]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]


def hostile_run(path):
    """Names that a folder of images, a network of one's own or somebody else may give."""
    run = fake_run(path / HOSTILE[0].replace("/", ""))

    def change(content):
        content["config"]["network"] = content["network"]["name"] = f"mod:{HOSTILE[0]}"
        content["config"]["data"]["name"] = f"folder:/data/{HOSTILE[1]}"
        content["config"]["method"] = f"mod:{HOSTILE[3]}"
        content["data"] = {"class_names": list(HOSTILE)}
        content["devices"] = content["versions"] = None
        for row, name in zip(content["network"]["layers"], 4 * HOSTILE, strict=False):
            row["name"] = f"{name}{row.get('site')}"

    return rewrite(run, "config.json", change)


def test_names_mean_nothing_to_a_browser(tmp_path):
    run = hostile_run(tmp_path)
    found, harmless = parsed(run), parsed(fake_run(tmp_path / "harmless"))
    assert {tag for tag, _ in found.tags} <= {tag for tag, _ in harmless.tags} | {"details"}
    assert not [name for _, given in found.tags for name in given if name.startswith("on")]
    classes = found.texts["What was run"]
    assert all(name in classes for name in HOSTILE)  # as they are, and as text
    assert run.path.name in found.texts[COMMAND]


def test_names_mean_nothing_in_the_other_reports(tmp_path, capsys):
    run = hostile_run(tmp_path)
    main([str(run.path), f"--output={tmp_path / 'out'}"])
    assert "<img" not in capsys.readouterr().out
    assert "<" not in (tmp_path / "out" / "report.md").read_text()
    with open(tmp_path / "out" / "table.csv") as file:
        assert not [cell for row in csv.reader(file) for cell in row if cell[:1] in "=+@" and cell]
    for figure in (tmp_path / "out").glob("*.svg"):
        names = {element.tag.rpartition("}")[2] for element in ElementTree.parse(figure).iter()}
        assert not {"img", "script"} & names
    html = (tmp_path / "out" / "index.html").read_text()
    assert "<img" not in html
    assert "<script" not in html


def running(path):
    run = fake_run(path, rounds=1, trained=0)
    epochs = [
        {"phase": phase, "epoch": epoch, "loss": 1.0, "seconds": 3.0 * epoch}
        for phase, count in (("round_00", 20), ("round_01", 5))
        for epoch in range(1, count + 1)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in epochs))
    return read_run(run.path)


def test_how_far_a_run_is_and_when_it_will_be_done(tmp_path):
    run = running(tmp_path / "r")
    # 15 epochs of a round and 6 trainings of 40, 3 seconds each
    text = parsed(run, runs=True).texts[""]
    assert "Not finished; last written at 02 Jan 2026 03:04:05 UTC." in text
    assert "round 2 of 2, epoch 6 of 20. It will be done at about 03:16 UTC, 13 min after" in text
    assert "1 of 2 rounds have ended" in parsed(run).texts[WORTH]
    text = parsed(run, runs=False).texts[""]
    assert "Not finished; last written at" in text
    assert "The run has stopped" in text
    assert "About 13 min of work are left" in text
    assert f"{run.record['original']['macs']:,} MACs" in parsed(run).texts["Budget"]


def test_a_browser_reads_again_while_the_run_goes_on(tmp_path):
    def again(run, runs):
        return [g for _, g in parsed(run, runs).tags if g.get("http-equiv") == "refresh"]

    unfinished, finished = running(tmp_path / "r"), fake_run(tmp_path / "f")
    assert again(unfinished, True)
    assert not again(unfinished, False)
    assert not again(finished, True)


def test_a_run_whose_process_is_gone_is_told_by_its_lock(tmp_path):
    run = running(tmp_path / "r")
    with open(run.path / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        write_page(run, tmp_path / "a.html")
    write_page(run, tmp_path / "b.html")
    os.utime(run.path / "metrics.jsonl", (0, NOW.timestamp()))
    for name in ("config.json", "rounds.jsonl", "finals.jsonl"):
        os.utime(run.path / name, (0, 0))
    write_page(run, tmp_path / "c.html")
    texts = [Parsed((tmp_path / f"{name}.html").read_text()).texts[""] for name in "abc"]
    assert ["It will be done" in text for text in texts] == [True, False, False]
    local = NOW.astimezone().strftime("%d %b %Y %H:%M:%S")
    assert f"last written at {local}" in texts[2]  # when the run wrote, not when the page was made


def test_a_page_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    run, path = fake_run(tmp_path / "r"), tmp_path / "r" / PAGE
    write_page(run, path)
    before = path.read_text()
    monkeypatch.setattr("furs_jax.report.page.page", lambda *_: "half")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_page(run, path)
    assert path.read_text() == before
    assert os.listdir(path.parent) == [path.name]


def test_few_seeds_are_shown_and_not_judged(tmp_path):
    def cut(content):
        for name in ("original", "searched"):
            content[name] |= {"seeds": content[name]["seeds"][:2], "top1": [0.9, 0.5]}
        content["difference"]["top1"] = [0.02, 1.44]

    found = parsed(rewrite(fake_run(tmp_path / "r"), "result.json", cut))
    assert "too few seeds to tell" in found.texts[WORTH]
    assert "91.00, 92.00" in [row[3] for row in found.cells[BOTH] if row[0] == "searched"]
    assert "±" not in found.texts[BOTH].replace("99.00 ± 0.00", "")


@pytest.mark.parametrize("method", ["uniform", "sfp", "lccl", "tas", "autoslim"])
def test_other_methods_have_a_page_without_rounds(tmp_path, method):
    run = fake_run(tmp_path / "r")
    lines = {
        "tas": [{"round": 0, "channels": [8] * 12, "macs": 1, "seconds": {"train": 2.0}}],
        "autoslim": [
            {"round": 0, "channels": [16] * 12, "macs": 9, "seconds": {"train": 2.0}},
            {"round": 1, "channels": [8] * 12, "macs": 1, "seconds": {"slim": 3.0}},
        ],
    }
    text = "".join(json.dumps(line) + "\n" for line in lines.get(method, []))
    (run.path / "rounds.jsonl").write_text(text)
    run = rewrite(run, "config.json", lambda content: content["config"].update(method=method))
    found = parsed(run)
    assert {WORTH, BOTH, "Widths before and after", COMMAND} < found.texts.keys()
    assert not {"FLOPs utilisation ratios", "Widths over the rounds"} & found.texts.keys()
    assert f"Search by {'AutoSlim' if method == 'autoslim' else ''}" in found.texts[""]
    times = {row[0]: row[1] for row in found.cells.get("Where the time went", [])}
    assert times.get("slimming") == ("3 s" if method == "autoslim" else None)


@pytest.mark.parametrize("wrong", [{"devices": 5}, {"data": {"class_names": 7}}, {"versions": [1]}])
def test_what_no_run_writes_is_one_line(tmp_path, wrong):
    run = rewrite(fake_run(tmp_path / "r"), "config.json", lambda content: content.update(wrong))
    with pytest.raises(SystemExit, match="furs_jax: .* has a file that no run writes: "):
        main([str(run.path)])


def test_a_training_has_a_page(tmp_path):
    found = parsed(fake_training(tmp_path / "t"))
    assert "90.00 % of top-1" in found.texts["What came of it"]
    assert "trained" in [row[0] for row in found.cells["The network"]]
    text = parsed(fake_training(tmp_path / "u", ended=False)).texts["What came of it"]
    assert "Not known yet" in text


def test_a_run_of_an_earlier_version_has_a_page(tmp_path):
    run = rewrite(fake_run(tmp_path / "r"), "config.json", lambda content: content.pop("network"))
    found = parsed(run)
    assert "earlier version" in found.texts["Widths before and after"]
    assert WORTH in found.texts


def test_the_command_gives_the_run_s_options_again(tmp_path):
    config = default_config()
    for option, text in {
        "channels": "(12, 8)",
        "data.name": f"folder:{tmp_path}/it's $HOME",
        "flops_budget": "3e6",
        "search.warm_start": "True",
        "kd.teacher": "original",
        "train.epochs": "7",
    }.items():
        override(config, option, text)
    expected = as_record(parse(config))
    _, first, *words = run_command(expected, tmp_path / "a b")
    assert first == "--config=configs/default.py"
    given = default_config()
    for word in words[:-1]:
        option, _, text = shlex.split(word)[0].removeprefix("--config.").partition("=")
        override(given, option, text)
    assert as_record(parse(given)) == expected
    assert shlex.split(words[-1]) == [f"--workdir={tmp_path}/a b"]


def test_the_network_can_be_taken_away_by_what_the_page_says(tmp_path):
    run = fake_run(tmp_path / "a run")
    trained = run.path / "checkpoints" / "final_searched_0"
    (trained / "9").mkdir(parents=True)
    told = parsed(run).texts["The network to take away"]
    assert f"python -m furs_jax.export {shlex.quote(str(run.path))} --format=onnx" in told
    assert f"furs_jax.load({str(run.path)!r})" in told
    assert str(trained) in told
