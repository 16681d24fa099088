"""``ibp generate``: text out of a run's folder, when the text that it was trained on has gone."""

from __future__ import annotations

import io
import itertools
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from interlocking_backprop.cli.generate import decoded
from interlocking_backprop.cli.generate import generate as main
from interlocking_backprop.cli.main import main as ibp
from interlocking_backprop.text import tokenizer_from_json
from interlocking_backprop.text.generation import generate
from interlocking_backprop.text.tokenizer import ByteTokenizer
from interlocking_backprop.training.config import TrainConfig
from interlocking_backprop.training.language_model import language_model
from tests.cli.text_runs import arguments

HERE = ["--device", "cpu", "--tokens", "40"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Runs on bytes and on byte pairs; the second has no head at component 0."""
    folder = tmp_path_factory.mktemp("generate")
    runs = {"bytes": folder / "bytes", "bpe": folder / "bpe"}
    assert ibp(arguments(folder, runs["bytes"])) == 0
    assert ibp(arguments(folder, runs["bpe"], "--vocabulary", "bpe:300", "--scheme", "pairwise")) == 0
    shutil.rmtree(folder / "corpus")
    shutil.rmtree(folder / "text-cache")
    return runs


def text_of(run: Path, capsys, *flags: str) -> str:
    assert main([str(run), *HERE, *flags]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
@pytest.mark.parametrize(("flags", "exit"), [([], None), (["--exit", "1"], 1), (["--exit", "2"], 2)])
def test_it_is_what_the_library_generates(runs, kind, flags, exit, capsys):
    model, tokenizer, context = language_model(runs[kind])
    ids = generate(
        model, tokenizer.encode("7: the"), 40, context=context, exit=exit, temperature=0.8, top_k=50, seed=0
    ).tolist()
    end = ids.index(tokenizer.separator) if tokenizer.separator in ids else None
    assert text_of(runs[kind], capsys, "--prompt", "7: the", *flags) == tokenizer.decode(ids[:end]) + "\n"


def test_exits_and_checkpoints_are_told_apart(runs, capsys):
    flags = ["--prompt", "7: the", "--temperature", "0"]
    texts = {exit: text_of(runs["bytes"], capsys, *flags, "--exit", exit) for exit in "012"}
    assert texts["2"] == text_of(runs["bytes"], capsys, *flags)
    assert len(set(texts.values())) > 1
    index = runs["bytes"] / "checkpoints" / "index.json"
    names = json.loads(index.read_text())
    weights = {}
    for which in ("best", "last"):
        path = runs["bytes"] / "checkpoints" / names[which] / "component-0000.pt"
        model = language_model(runs["bytes"], which).model
        weights[which] = model.components[0].state_dict()["main_net.embedding.tokens.weight"]
        saved = torch.load(path, weights_only=True)["model"]["main_net.embedding.tokens.weight"]
        assert torch.equal(weights[which], saved)


def test_seed_decides(runs, capsys):
    first, again, other = (text_of(runs["bytes"], capsys, "--seed", seed) for seed in ("0", "0", "1"))
    assert first == again != other


def test_top_p_of_nearly_nothing_takes_the_most_likely(runs, capsys):
    likely = text_of(runs["bytes"], capsys, "--temperature", "0")
    assert text_of(runs["bytes"], capsys, "--top-p", "0.000001") == likely
    assert text_of(runs["bytes"], capsys, "--top-k", "1") == likely


def test_without_a_prompt_a_document_begins(runs, capsys):
    model, tokenizer, context = language_model(runs["bytes"])
    ids = generate(model, [tokenizer.separator], 40, context=context, temperature=0).tolist()[1:]
    assert text_of(runs["bytes"], capsys, "--temperature", "0") == tokenizer.decode(ids) + "\n"


def test_prompt_from_a_file_and_from_standard_input(runs, capsys, tmp_path, monkeypatch):
    prompt = "3: façade\r\n"
    expected = text_of(runs["bytes"], capsys, "--prompt", prompt)
    assert expected.startswith(prompt)
    (tmp_path / "prompt").write_bytes(prompt.encode())
    assert text_of(runs["bytes"], capsys, "--prompt-file", str(tmp_path / "prompt")) == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(prompt.encode())))
    assert text_of(runs["bytes"], capsys, "--prompt-file", "-") == expected


def test_no_tokens_print_the_prompt_alone(runs, capsys):
    assert text_of(runs["bytes"], capsys, "--prompt", "as it is", "--tokens", "0") == "as it is\n"


def test_it_ends_where_the_document_does(runs, capsys, monkeypatch):
    def stream(model, prompt, **options):
        return map(torch.tensor, itertools.chain(b"ab", [ByteTokenizer.separator], itertools.repeat(ord("c"))))

    monkeypatch.setattr("interlocking_backprop.cli.generate.generate_stream", stream)
    assert text_of(runs["bytes"], capsys, "--prompt", "=") == "=ab\n"


def test_a_reader_that_has_enough_is_no_error(runs, monkeypatch):
    """As with `| head`: the other end of the pipe is closed."""
    ours, theirs = os.pipe()
    with open(theirs, "w") as pipe:
        os.close(ours)
        monkeypatch.setattr(sys, "stdout", pipe)
        assert main([str(runs["bytes"]), *HERE]) == 0
        pipe.write("nobody")  # what is still written goes nowhere, and without complaint


class TestDecoded:
    @pytest.mark.parametrize("text", ["abc", "aé数🙂b", "\ufffd\ufffd", "x\ufffd"])
    @pytest.mark.parametrize("kind", ["bytes", "bpe"])
    def test_characters_come_whole(self, runs, kind, text):
        tokenizer = tokenizer_from_json((runs[kind] / "tokenizer.json").read_text())
        parts = list(decoded(tokenizer.encode(text), tokenizer))
        assert "".join(parts) == text
        if kind == "bytes" and "\ufffd" not in text:
            assert parts == list(text)

    @pytest.mark.parametrize("seed", range(20))
    @pytest.mark.parametrize("kind", ["bytes", "bpe"])
    def test_bytes_that_are_no_text(self, runs, kind, seed):
        tokenizer = tokenizer_from_json((runs[kind] / "tokenizer.json").read_text())
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(tokenizer.separator, (60,), generator=generator).tolist()
        assert "".join(decoded(ids, tokenizer)) == tokenizer.decode(ids)


def test_run_of_another_kind(tmp_path):
    TrainConfig().save(tmp_path / "config.json")
    with pytest.raises(ValueError, match="is the run of a resnet; expected one of `ibp train --model transformer`"):
        main([str(tmp_path)])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tokens", "-1"], "--tokens is -1; expected a whole number of at least 0"),
        (["--seed", "-1"], "--seed is -1; expected"),
        (["--temperature", "-1"], "--temperature is -1.0; expected a number of at least 0"),
        (["--top-k", "-2"], "top_k is -2; expected"),
        (["--top-p", "0"], "top_p is 0.0; expected"),
        (["--exit", "0"], "component 0 has no head; expected one of 1, 2"),
        (["--exit", "3"], "exit is 3; expected a component from 0 to 2"),
        (["--exit", "-1"], "exit is -1; expected"),
        (["--prompt", "a", "--prompt-file", "b"], "--prompt and --prompt-file are both given"),
        (["--prompt-file", "nowhere"], "--prompt-file: nowhere cannot be read as text in UTF-8"),
        (["--checkpoint", "first"], "--checkpoint"),
        (["--device", "abacus"], "--device is 'abacus'"),
    ],
)
def test_flag_that_does_not_fit(runs, flags, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011  (the command line makes one line and exit code 2 of it)
        main([str(runs["bpe"]), "--device", "cpu", *flags])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_folder_that_does_not_fit(runs, tmp_path):
    with pytest.raises(ValueError, match="holds no run"):
        main([str(tmp_path)])
    copy = tmp_path / "run"
    shutil.copytree(runs["bytes"], copy)
    (copy / "tokenizer.json").write_text("[]")
    with pytest.raises(ValueError, match=r"tokenizer.json: the tokenizer cannot be read"):
        main([str(copy), "--device", "cpu"])
    (copy / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"the tokenizer of the run cannot be read .*tokenizer.json"):
        main([str(copy), "--device", "cpu"])
    (copy / "checkpoints" / "index.json").write_text("{}")
    with pytest.raises(ValueError, match="holds no last checkpoint; the run has not come to its first one"):
        main([str(copy), "--checkpoint", "last"])


def test_prompt_that_is_no_text(runs, tmp_path):
    (tmp_path / "prompt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="cannot be read as text in UTF-8"):
        main([str(runs["bytes"]), "--prompt-file", str(tmp_path / "prompt")])
