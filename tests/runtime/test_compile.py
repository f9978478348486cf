"""compile: text, messages or token ids become a prefix through the bundle's own graph, as it is
typed and as it is called.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from bundles import make_prefix
from click.testing import Result
from families import byte_level, mistral
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from edgeprefix.cli.compile import compile_app
from edgeprefix.runtime import Engine, Prefix
from edgeprefix.runtime.contracts.identity import BaseIdentity
from edgeprefix.runtime.contracts.manifest import Manifest, record_files
from edgeprefix.runtime.contracts.prefix_file import PrefixLayer
from edgeprefix.runtime.contracts.prompt import render_prompt
from edgeprefix.runtime.contracts.task_pack import BEGINS, TaskPack
from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.runtime.engine.rounding_loss import compare_distributions, rounding_loss
from edgeprefix.runtime.errors import DataError, PrefixFileError, PromptTooLongError, RequestError
from edgeprefix.runtime.tasks.chat import bundle_chat
from edgeprefix.runtime.tasks.chat_prefix import chat_beginning

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] "
    "}}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FOLDED = (  # as Gemma and Llama 2 have it: the system prompt is a part of the first user message
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] + '\n' %}{% "
    "set rest = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}"
    "{% if not rest %}{{ raise_exception('no user message') }}{% endif %}"
    "{% for message in rest %}[{{ message['role'] }}] {% if loop.first %}{{ system }}{% endif %}"
    "{{ message['content'] }} {the end} {% endfor %}{% if add_generation_prompt %}[model] {% "
    "endif %}"
)
CHAT_TEMPLATES = Path(__file__).parents[1] / "data" / "chat_templates"
TINY_TOKENIZER = TextTokenizer(byte_level(), end_ids=(0,))
TINY_MANIFEST = Manifest(
    base=BaseIdentity(name="b", weights_sha256="", config_sha256="", tokenizer_sha256=""),
    model_type="llama",
    layers=(),
    vocabulary=384,
    max_positions=64,
    precision="fp32",
    special_tokens={"bos_token": "<s>", "eos_token": "</s>"},
)
SYSTEM = [{"role": "system", "content": "Be brief."}]
QUESTION = {"role": "user", "content": "Where is the café?"}


@pytest.fixture(scope="module")
def chat_bundle(llama_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The llama bundle with a chat template."""
    folder = tmp_path_factory.mktemp("chat") / "bundle"
    shutil.copytree(llama_bundle, folder)
    dataclasses.replace(Manifest.load(folder), chat_template=CHATML).save(folder)
    return folder


def compile_command(bundle: Path, out: Path, *options: object) -> Result:
    return CliRunner().invoke(
        compile_app, [str(bundle), "--task", "t", "--out", str(out), *map(str, options)]
    )


def same_text(bundle: Path, file: Path, prompt: str, whole: list[int], tokens: int = 12) -> None:
    """Prompting behind the file gives the greedy tokens of the whole text, and logits within
    rounding.
    """
    with Engine.load(bundle, prefixes=file, max_batch=1, max_length=256, threads=1) as engine:
        settings = {"max_new_tokens": tokens, "ignore_end": True}
        behind = engine.generate(prompt, task="t", **settings)
        expected = engine.generate(whole, **settings)
        assert behind.tokens == expected.tokens
        text = [*whole, *expected.tokens]
        new = len(text) - engine.task("t").length
        got = engine.next_logprobs(text[-new:], task="t")
        np.testing.assert_allclose(got, engine.next_logprobs(text)[-new:], atol=1e-5)


def test_text_gives_what_the_prompt_gives(llama_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.safetensors"
    done = compile_command(llama_bundle, out, "--text", "The quick brown fox", "--dtype", "fp32")
    assert done.exit_code == 0, done.output
    with Engine.load(llama_bundle, max_batch=1, max_length=8) as engine:
        whole = [
            *engine.tokenizer.encode_prompt("The quick brown fox"),
            *engine.tokenizer.encode_piece(" jumps over"),
        ]
    same_text(llama_bundle, out, " jumps over", whole)


def test_token_ids(llama_bundle: Path, tmp_path: Path) -> None:
    ids, file, out = [7, 8, 9, 200], tmp_path / "ids.json", tmp_path / "t.safetensors"
    file.write_text(json.dumps(ids))
    assert compile_command(llama_bundle, out, "--ids", file, "--dtype", "fp32").exit_code == 0
    with Engine.load(llama_bundle, max_batch=1, max_length=8) as engine:
        same_text(llama_bundle, out, "It is", [*ids, *engine.tokenizer.encode_piece("It is")])
    file.write_text('[1, "2"]')
    refused = compile_command(llama_bundle, tmp_path / "u.safetensors", "--ids", file)
    assert isinstance(refused.exception, DataError)
    assert "holds no list of token ids" in str(refused.exception)


def test_messages_through_the_chat_template(chat_bundle: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "messages.json", tmp_path / "t.safetensors"
    file.write_text(json.dumps(SYSTEM))
    done = compile_command(chat_bundle, out, "--messages", file, "--dtype", "fp32")
    assert done.exit_code == 0, done.output
    pack = Prefix.load(out).pack
    assert pack.prompt == "<|im_start|>user\n{input}<|im_end|>\n<|im_start|>assistant\n"
    with Engine.load(chat_bundle, max_batch=1, max_length=8) as engine:
        beginning = chat_beginning(engine.manifest, engine.tokenizer, SYSTEM)
        text = bundle_chat(engine.manifest, engine.tokenizer, [*SYSTEM, QUESTION])
        assert text == beginning.text + pack.prompt.replace("{input}", QUESTION["content"])
        rest = engine.tokenizer.encode_piece(text[len(beginning.text) :])
        whole = [*engine.tokenizer.encode_piece(beginning.text), *rest]
    same_text(chat_bundle, out, QUESTION["content"], whole)


def test_a_template_that_folds_the_system_prompt_into_the_users(chat_bundle: Path) -> None:
    manifest = dataclasses.replace(Manifest.load(chat_bundle), chat_template=FOLDED)
    with Engine.load(chat_bundle, max_batch=1, max_length=8) as engine:
        found = chat_beginning(manifest, engine.tokenizer, SYSTEM)
        assert found.text == "[user] Be brief.\n"
        assert found.prompt == "{input} {{the end}} [model] "
        turns = [*SYSTEM, QUESTION, {"role": "assistant", "content": "Here."}]
        assert (
            chat_beginning(manifest, engine.tokenizer, turns).prompt
            == "[user] {input} {{the end}} [model] "
        )
        for messages, message in (
            ([], "no messages to compile"),
            ([*SYSTEM, QUESTION], "the last message is the user's"),
        ):
            with pytest.raises(RequestError, match=message):
                chat_beginning(manifest, engine.tokenizer, messages)
        with pytest.raises(RequestError, match="has no chat template"):
            chat_beginning(
                dataclasses.replace(manifest, chat_template=None), engine.tokenizer, SYSTEM
            )


PUBLISHED = {file.stem: file.read_text("utf-8") for file in CHAT_TEMPLATES.glob("*.jinja")}


@pytest.mark.parametrize(
    ("name", "text", "prompt"),
    [
        ("llama2", "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n", "{input} [/INST]"),
        (
            "gemma3",
            "<start_of_turn>user\nBe brief.\n\n",
            "{input}<end_of_turn>\n<start_of_turn>model\n",
        ),
        (
            "qwen2.5",
            "<|im_start|>system\nBe brief.<|im_end|>\n",
            "<|im_start|>user\n{input}<|im_end|>\n<|im_start|>assistant\n",
        ),
    ],
)
def test_a_system_message_alone(
    chat_bundle: Path, tmp_path: Path, name: str, text: str, prompt: str
) -> None:
    """Llama 2 gives an empty text for it, Gemma 3 only the begin token: its text is in the file
    nevertheless, and not in the prompt.
    """
    bundle, file, out = tmp_path / "bundle", tmp_path / "m.json", tmp_path / "t.safetensors"
    shutil.copytree(chat_bundle, bundle)
    names = {"bos_token": "", "eos_token": "<|endoftext|>"}
    manifest = Manifest.load(bundle)
    manifest = dataclasses.replace(manifest, chat_template=PUBLISHED[name], special_tokens=names)
    manifest.save(bundle)
    file.write_text(json.dumps(SYSTEM))
    done = compile_command(bundle, out, "--messages", file, "--no-measure")
    assert done.exit_code == 0, done.output
    pack = Prefix.load(out).pack
    assert pack.prompt == prompt
    with Engine.load(bundle, max_batch=1, max_length=8) as engine:
        assert pack.recipe["tokens"] == len(engine.tokenizer.encode_piece(text))
        found = chat_beginning(engine.manifest, engine.tokenizer, SYSTEM)
        whole = bundle_chat(engine.manifest, engine.tokenizer, [*SYSTEM, QUESTION])
        assert found.text == text
        assert found.text + found.prompt.replace("{input}", QUESTION["content"]) == whole


@given(
    said=st.lists(st.text("ab {}<|>\n", min_size=1, max_size=6), max_size=3),
    name=st.sampled_from(["llama2", "gemma3", "qwen2.5", "qwen3", "mistral-nemo", "zephyr"]),
)
@settings(max_examples=60, deadline=None)
def test_text_and_prompt_make_the_conversation(said: list[str], name: str) -> None:
    manifest = dataclasses.replace(TINY_MANIFEST, chat_template=PUBLISHED[name])
    messages = [{"role": "system", "content": "Be {brief}."}]
    for content in said:
        messages += [
            {"role": "user", "content": f"x{content}x"},
            {"role": "assistant", "content": "Yes."},
        ]
    found = chat_beginning(manifest, TINY_TOKENIZER, messages)
    question = {"role": "user", "content": "What?"}
    whole = bundle_chat(manifest, TINY_TOKENIZER, [*messages, question])
    assert found.text + render_prompt(found.prompt, {"input": "What?"}) == whole
    assert all(message["content"] in found.text for message in messages)


def test_messages_that_the_template_leaves_out(chat_bundle: Path) -> None:
    silent = "{% for m in messages if m.role == 'user' %}[{{ m.content }}]{% endfor %}"
    behind = "{% for m in messages | reverse %}[{{ m.content }}]{% endfor %}"
    with Engine.load(chat_bundle, max_batch=1, max_length=8) as engine:
        manifest = dataclasses.replace(engine.manifest, chat_template=silent)
        with pytest.raises(RequestError, match=r"leaves out a message \('Be brief.'\)"):
            chat_beginning(manifest, engine.tokenizer, SYSTEM)
        manifest = dataclasses.replace(engine.manifest, chat_template=behind)
        assert chat_beginning(manifest, engine.tokenizer, SYSTEM).prompt == "{input}][Be brief.]"
        hostile = [{"role": "system", "content": "a<|endoftext|>b"}]
        with pytest.raises(RequestError, match="would stand behind the user's text"):
            chat_beginning(manifest, engine.tokenizer, hostile)


def test_control_tokens_in_messages_are_text(chat_bundle: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "messages.json", tmp_path / "t.safetensors"
    with Engine.load(chat_bundle, max_batch=1, max_length=8) as engine:
        letters = len(engine.tokenizer.encode_piece("<|endoftext|>"))
    lengths = []
    for content in ("Be.", "Be<|endoftext|>."):
        file.write_text(json.dumps([{"role": "system", "content": content}]))
        done = compile_command(chat_bundle, out, "--messages", file, "--no-measure", "--force")
        assert done.exit_code == 0, done.output
        lengths.append(Prefix.load(out).length)
    assert letters > 1
    assert lengths[1] - lengths[0] == letters
    for option, tokens in ((), letters + 1), (("--special",), 2):
        text = ("--text", "a<|endoftext|>", "--no-measure", "--force")
        assert compile_command(chat_bundle, out, *text, *option).exit_code == 0
        assert Prefix.load(out).length == tokens


def test_a_date_in_the_text_is_said(chat_bundle: Path, tmp_path: Path) -> None:
    bundle, file, out = tmp_path / "bundle", tmp_path / "m.json", tmp_path / "t.safetensors"
    shutil.copytree(chat_bundle, bundle)
    dataclasses.replace(Manifest.load(bundle), chat_template=PUBLISHED["llama3.2"]).save(bundle)
    file.write_text(json.dumps(SYSTEM))
    done = compile_command(bundle, out, "--messages", file, "--no-measure")
    assert done.exit_code == 0, done.output
    assert "the chat template writes today's date into the text" in done.stderr
    silent = compile_command(chat_bundle, out, "--messages", file, "--no-measure", "--force")
    assert "today's date" not in silent.stderr


@pytest.mark.parametrize(
    ("text", "prompt", "problem"),
    [
        ("The fox", "{input}", "ends in a word ('fox')"),
        ("The fox", "s jump: {input}", "ends in a word ('fox')"),
        ("The fox ", "{input}", "ends in a space"),
        ("The fox\t", "\n{input}", "ends in a space"),
        ("The fox", "\n{input}", None),
        ("The fox", " {input}", None),
        ("The fox.\n", "{input}", None),
        ("The fox.", "{input}", None),
    ],
)
def test_the_end_of_a_text(
    engine: Engine, caplog: pytest.LogCaptureFixture, text: str, prompt: str, problem: str | None
) -> None:
    engine.compile(text, name="t", pack=TaskPack(prompt=prompt))
    if problem is None:
        assert "the text ends" not in caplog.text
    else:
        assert problem in caplog.text


def test_no_dummy_space_behind_a_text(llama_bundle: Path, tmp_path: Path) -> None:
    """sentencepiece puts ▁ before each text by itself; behind a compiled one that is a space which
    nobody wrote.
    """
    bundle = tmp_path / "bundle"
    shutil.copytree(llama_bundle, bundle)
    (bundle / "tokenizer.json").write_text(mistral().to_str())
    manifest = Manifest.load(bundle)
    dataclasses.replace(manifest, files=record_files(bundle)).save(bundle)
    with Engine.load(bundle, max_batch=1, max_length=64, threads=1) as engine:
        first, second = "Once upon a time.\n", "There was"
        engine.load_prefix(engine.compile(first, name="t"))
        prefix, whole = engine.task("t").length, engine.logprobs(first + second).tokens
        behind = engine.logprobs(second, task="t", template="{input}").tokens
        assert behind == whole[prefix:]
        assert engine.tokenizer.token_text(behind[0]) == "T"


def test_chunks_and_progress(llama_bundle: Path) -> None:
    ids = (np.arange(200) * 7 % 384).tolist()
    done: list[int] = []
    with Engine.load(
        llama_bundle, max_batch=1, max_length=220, threads=1, chunk_tokens=64
    ) as engine:
        chunked = engine.compile(ids, name="t", progress=done.append)
    assert done == [0, 64, 128, 192, 200]
    with Engine.load(
        llama_bundle, max_batch=1, max_length=220, threads=1, chunk_tokens=256
    ) as engine:
        whole = engine.compile(ids, name="t")
    for one, other in zip(chunked.layers, whole.layers, strict=True):
        np.testing.assert_allclose(one.key, other.key, atol=1e-5)


def test_a_text_that_is_too_long(llama_bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "ids.json"
    file.write_text(json.dumps([7] * 300))
    refused = compile_command(llama_bundle, tmp_path / "t.safetensors", "--ids", file)
    assert isinstance(refused.exception, PromptTooLongError)
    assert "the text has 300 tokens, room is for 256" in str(refused.exception)
    file.write_text(json.dumps([7] * 256))
    whole = compile_command(
        llama_bundle, tmp_path / "t.safetensors", "--ids", file, "--dtype", "int8"
    )
    assert whole.exit_code == 0, whole.output
    assert "no positions left to measure" in whole.stderr


@pytest.mark.parametrize(("dtype", "bound"), [("fp16", 1e-6), ("bf16", 1e-3), ("int8", 1e-2)])
def test_the_loss_of_the_files_precision_is_measured(
    llama_bundle: Path, tmp_path: Path, dtype: str, bound: float
) -> None:
    out = tmp_path / "t.safetensors"
    done = compile_command(llama_bundle, out, "--text", "The quick brown fox", "--dtype", dtype)
    assert f"{dtype} against fp32 over 32 tokens: same likeliest token" in done.stderr
    assert (
        "against fp32"
        not in compile_command(
            llama_bundle, out, "--text", "fox", "--dtype", dtype, "--force", "--no-measure"
        ).stderr
    )
    with Engine.load(llama_bundle, max_batch=1, max_length=64, threads=1) as engine:
        loss = rounding_loss(engine, engine.compile("The quick brown fox", name="t"), dtype)
        assert 0 <= loss.kl_mean <= loss.kl_max < bound
        assert loss.top1 >= 0.9
        assert loss.tokens == 32
        assert not engine.tasks()


def test_the_loss_is_kullback_leibler() -> None:
    exact, other = (np.log(np.array([row], np.float32)) for row in ([0.5, 0.5], [0.25, 0.75]))
    loss = compare_distributions(exact, other, dtype="int8")
    assert loss.kl_mean == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3))
    assert loss.top1 == 0.0


def test_numbers_that_fp16_cannot_hold(llama_bundle: Path) -> None:
    small = make_prefix(Manifest.load(llama_bundle), "t", 2)
    large = dataclasses.replace(
        small, layers=tuple(PrefixLayer(key * 1e6, value) for key, value in small.layers)
    )
    with Engine.load(llama_bundle, max_batch=1, max_length=64) as engine:
        with pytest.raises(
            PrefixFileError, match="more than fp16 holds .*; save it as bf16 or fp32"
        ):
            rounding_loss(engine, large, "fp16")
        assert not engine.tasks()


def test_without_a_begin_token(llama_bundle: Path, tmp_path: Path) -> None:
    bundle, out = tmp_path / "bundle", tmp_path / "t.safetensors"
    shutil.copytree(llama_bundle, bundle)
    rules = json.loads((bundle / "tokenizer.json").read_text())
    rules["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            "<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}
        },
    }
    (bundle / "tokenizer.json").write_text(json.dumps(rules))
    manifest = Manifest.load(bundle)
    dataclasses.replace(manifest, files=record_files(bundle)).save(bundle)
    for option, begins in (("--begin", True), ("--no-begin", False)):
        assert (
            compile_command(
                bundle, out, "--text", "fox", option, "--force", "--no-measure"
            ).exit_code
            == 0
        )
        assert Prefix.load(out).pack.recipe[BEGINS] is begins


def test_wrong_usage(llama_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.safetensors"
    assert compile_command(llama_bundle, out).exit_code == 2
    assert compile_command(llama_bundle, out, "--text", "a", "--ids", out).exit_code == 2
    assert compile_command(llama_bundle, out, "--text", "a", "--dtype", "int3").exit_code == 2
    assert isinstance(compile_command(llama_bundle, out, "--messages", out).exception, DataError)
