"""The engine as users meet it: text in, text out, tasks swapped and mixed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bundles import TASKS, make_prefix, torch_greedy, torch_logits, torch_model
from tokenizers import Tokenizer

from edgeprefix.runtime import Engine, GenerationDefaults, Prefix, Request, TaskPack
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.runtime.decoding.decoder import Decoder
from edgeprefix.runtime.decoding.opening import make_cache
from edgeprefix.runtime.decoding.session import open_graph
from edgeprefix.runtime.errors import (
    BaseMismatchError,
    BundleError,
    CapacityError,
    EngineClosedError,
    PrefixFileError,
    PromptTooLongError,
    RequestError,
    TemplateError,
    UnknownTaskError,
)

PROMPTS = [
    "The quick brown fox",
    "name: Ann | city: Rome",
    "Where is the café?",
    "I cannot log in to my account",
]


def test_greedy_text_equals_torch(bundle: Path, base: Path) -> None:
    model, manifest = torch_model(base), Manifest.load(bundle)
    prefix = make_prefix(manifest, "news", 5)
    with Engine.load(bundle, max_batch=2, max_length=96, threads=1, chunk_tokens=4) as engine:
        engine.load_prefix(prefix)
        for name, loaded in (("news", prefix), (None, None)):
            for text in PROMPTS:
                ids = engine.tokenizer.encode_prompt(text)
                completion = engine.generate(text, task=name, max_new_tokens=12, ignore_end=True)
                assert list(completion.tokens) == torch_greedy(model, loaded, ids, 12)
                assert completion.text == engine.tokenizer.decode(completion.tokens)
                assert (completion.prompt_tokens, completion.finish_reason) == (len(ids), "length")


def test_a_mixed_batch_gives_what_each_gives_alone(shared_engine: Engine) -> None:
    requests = [
        Request(prompt, task=name, max_new_tokens=5 + index, ignore_end=True)
        for index, name in enumerate([*TASKS, None])
        for prompt in PROMPTS
    ]
    mixed = shared_engine.generate_many(requests)
    alone = [shared_engine.generate_many([request])[0] for request in requests]
    assert [one.tokens for one in mixed] == [one.tokens for one in alone]
    assert [one.text for one in mixed] == [one.text for one in alone]
    # The prefixes do change what comes out
    assert len({one.tokens[:5] for one in alone}) > len(TASKS)


def test_a_steady_int4_engine_gives_the_same_tokens_in_any_company(
    int4_bundle: Path, prefix_folder: Path
) -> None:
    with Engine.load(
        int4_bundle, prefixes=prefix_folder, max_batch=3, max_length=90, threads=1, steady=True
    ) as engine:
        assert (engine.max_batch, engine.max_length) == (3, 90)
        requests = [
            Request(prompt, task=name, max_new_tokens=6 + place, ignore_end=True)
            for place, name in enumerate([*TASKS, None])
            for prompt in PROMPTS
        ]
        together = engine.generate_many(requests)
        assert [one.tokens for one in together] == [
            engine.generate_many([one])[0].tokens for one in requests
        ]
        assert len(engine.generate([5] * 10, max_new_tokens=80, ignore_end=True).tokens) == 80


def test_stream_sums_up_to_the_completion(shared_engine: Engine) -> None:
    whole = shared_engine.generate(PROMPTS[0], task="mail", max_new_tokens=30, ignore_end=True)
    with shared_engine.stream(
        PROMPTS[0], task="mail", max_new_tokens=30, ignore_end=True
    ) as stream:
        pieces = list(stream)
        completion = stream.completion()
    assert "".join(piece.text for piece in pieces) == whole.text == completion.text
    assert tuple(piece.token for piece in pieces) == whole.tokens
    assert [piece.finish_reason for piece in pieces] == [None] * 29 + ["length"]


def test_the_end_token_ends(shared_engine: Engine) -> None:
    completion = shared_engine.generate(PROMPTS[0], logit_bias={0: 100.0})
    assert (completion.text, completion.tokens, completion.finish_reason) == ("", (), "stop")
    longer = shared_engine.generate(PROMPTS[0], logit_bias={0: 100.0}, min_new_tokens=3)
    assert (len(longer.tokens), longer.finish_reason) == (3, "stop")
    pieces = list(shared_engine.stream(PROMPTS[0], logit_bias={0: 100.0}, min_new_tokens=3))
    assert (pieces[-1].token, pieces[-1].finish_reason) == (None, "stop")


def test_stop_text_across_tokens(shared_engine: Engine) -> None:
    whole = shared_engine.generate(PROMPTS[1], max_new_tokens=40, ignore_end=True).text
    stop = whole[10:14]
    completion = shared_engine.generate(
        PROMPTS[1], max_new_tokens=40, ignore_end=True, stop=(stop,)
    )
    assert completion.text == whole[: whole.find(stop)]
    assert completion.finish_reason == "stop"
    streamed = "".join(
        piece.text
        for piece in shared_engine.stream(PROMPTS[1], max_new_tokens=40, ignore_end=True, stop=stop)
    )
    assert streamed == completion.text


def test_samples_are_seeded_and_apart(shared_engine: Engine) -> None:
    def sample(seed: int) -> list[tuple[int, ...]]:
        completion = shared_engine.generate(
            PROMPTS[0], temperature=2.0, n=3, seed=seed, max_new_tokens=10, ignore_end=True
        )
        return [completion.tokens, *(other.tokens for other in completion.alternatives)]

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)
    assert len(set(sample(1))) == 3


def test_a_seed_gives_one_result_whatever_else_runs(shared_engine: Engine) -> None:
    request = Request(
        PROMPTS[0],
        task="news",
        temperature=1.5,
        top_p=0.9,
        seed=7,
        max_new_tokens=20,
        ignore_end=True,
    )
    alone = shared_engine.generate_many([request])[0]
    others = [
        Request(text, task="poem", temperature=1.0, max_new_tokens=9, ignore_end=True)
        for text in PROMPTS
    ]
    assert shared_engine.generate_many([*others, request, *others])[4].tokens == alone.tokens


def test_logprobs_are_torchs(bundle: Path, base: Path) -> None:
    model = torch_model(base)
    with Engine.load(bundle, max_batch=1, max_length=96, threads=1) as engine:
        completion = engine.generate(
            PROMPTS[0], max_new_tokens=6, logprobs=3, temperature=0.3, seed=1, ignore_end=True
        )
        ids = engine.tokenizer.encode_prompt(PROMPTS[0])
    logits = torch_logits(model, None, [*ids, *completion.tokens]).astype(np.float64)
    logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    assert completion.logprobs is not None
    for place, entry in enumerate(completion.logprobs, start=len(ids) - 1):
        assert entry.token == completion.tokens[place - len(ids) + 1]
        assert entry.logprob == pytest.approx(logprobs[place, entry.token], abs=1e-4)
        best = np.argsort(-logprobs[place])[:3]
        assert [token for token, _ in entry.top] == best.tolist()


def test_prompts_as_text_ids_and_fields(engine: Engine) -> None:
    pack = TaskPack(
        prompt="Q: {question}\nA:", stop=("\n",), generation=GenerationDefaults(max_new_tokens=7)
    )
    engine.load_prefix(make_prefix(engine.manifest, "qa", 4, pack=pack))
    by_fields = engine.generate({"question": "why?"}, task="qa")
    ids = engine.tokenizer.encode_prompt("Q: why?\nA:")
    assert engine.generate(ids, task="qa").tokens == by_fields.tokens
    assert engine.generate("Q: why?\nA:", task="qa", template="{input}").tokens == by_fields.tokens
    assert len(by_fields.tokens) <= 7
    assert (
        len(engine.generate({"question": "why?"}, task="qa", max_new_tokens=3, stop=()).tokens) == 3
    )
    with pytest.raises(TemplateError, match="needs field {question}, but the row has: input"):
        engine.generate("why?", task="qa")


def test_the_tasks_own_length_is_a_wish_and_an_explicit_one_is_not(engine: Engine) -> None:
    pack = TaskPack(generation=GenerationDefaults(max_new_tokens=1000))
    engine.load_prefix(make_prefix(engine.manifest, "long", 6, pack=pack))
    ids = list(range(10, 30))
    assert len(engine.generate(ids, task="long", ignore_end=True).tokens) == 96 - 6 - 20
    with pytest.raises(
        PromptTooLongError,
        match=(
            r"prefix 6 \+ prompt 20 \+ new 71 = 97 of 96 positions; shorten it, lower "
            r"max_new_tokens"
        ),
    ):
        engine.generate(ids, task="long", max_new_tokens=71)
    with pytest.raises(PromptTooLongError, match="the prompt has 90 tokens, room is for 89"):
        engine.generate([5] * 90, task="long")


@pytest.mark.parametrize(
    ("prompt", "settings", "error", "message"),
    [
        ("", {}, RequestError, "the prompt is empty"),
        ([], {}, RequestError, "the prompt is empty"),
        (
            [5, 384],
            {},
            RequestError,
            r"token id 384 at place 1 is out of range, the vocabulary has 0 … 383",
        ),
        ([-1], {}, RequestError, "token id -1 at place 0 is out of range"),
        (7, {}, RequestError, "a prompt is text, token ids or named fields, not int"),
        ("x", {"task": "newz"}, UnknownTaskError, "task 'newz' is unknown; did you mean news"),
        (
            "x",
            {"task": "zzz"},
            UnknownTaskError,
            "task 'zzz' is unknown; loaded are code, mail, news, poem",
        ),
        ("x", {"top_p": 7}, RequestError, "top_p=7: expected a number, above 0 and at most 1"),
        (
            "x",
            {"max_tokens": 7},
            RequestError,
            "option 'max_tokens' is unknown; did you mean max_new_tokens",
        ),
        ("x", {"n": 5, "temperature": 1.0}, RequestError, "5 sequences at once exceed max_batch=4"),
    ],
)
def test_bad_requests_are_refused_and_the_engine_goes_on(
    shared_engine: Engine,
    prompt: object,
    settings: dict[str, object],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        shared_engine.generate(prompt, **settings)  # type: ignore[arg-type]
    with pytest.raises(error, match=message):
        list(shared_engine.stream(prompt, **settings))  # type: ignore[arg-type]
    assert shared_engine.generate("still there", max_new_tokens=2, ignore_end=True).tokens


def test_streams_give_one_text(shared_engine: Engine) -> None:
    with pytest.raises(RequestError, match=r"a stream gives one text; use generate\(\)"):
        shared_engine.stream("x", n=2, temperature=1.0)


def test_loading_prefixes_is_all_or_nothing(
    engine: Engine, gpt2_bundle: Path, prefix_folder: Path, tmp_path: Path
) -> None:
    before = engine.tasks()
    foreign = make_prefix(Manifest.load(gpt2_bundle), "news", 4)
    foreign.save(tmp_path / "foreign.safetensors")
    good = (prefix_folder / "mail.safetensors").read_bytes()
    (tmp_path / "short.safetensors").write_bytes(good[:-5])
    (tmp_path / "altered.safetensors").write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(
        BaseMismatchError,
        match=r"prefix .*foreign.* belongs to base tiny-gpt2 .*, but this base is tiny-llama",
    ):
        engine.load_prefix(tmp_path / "foreign.safetensors")
    for name in ("short", "altered", "missing"):
        with pytest.raises(PrefixFileError, match=name):
            engine.load_prefix(tmp_path / f"{name}.safetensors")
    with pytest.raises(
        CapacityError, match="takes 96 positions, the cache has 96 a row; .* max_length above 96"
    ):
        engine.load_prefix(make_prefix(engine.manifest, "huge", 96))
    make_prefix(engine.manifest, "fine", 4).save(tmp_path / "a_fine_one.safetensors")
    with pytest.raises(PrefixFileError, match="altered"):
        engine.load_prefixes(tmp_path)
    assert engine.tasks() == before


def test_a_replaced_task_changes_what_comes_next(engine: Engine) -> None:
    before = engine.generate(PROMPTS[0], task="news", max_new_tokens=12, ignore_end=True).tokens
    info = engine.load_prefix(make_prefix(engine.manifest, "news", 7, seed=99))
    after = engine.generate(PROMPTS[0], task="news", max_new_tokens=12, ignore_end=True).tokens
    assert info.length == 7
    assert before != after
    assert next(task for task in engine.tasks() if task.name == "news").hits == 2
    engine.unload("news")
    with pytest.raises(UnknownTaskError, match="task 'news' is unknown"):
        engine.generate("x", task="news")


def test_prefixes_from_files_folders_and_bytes(llama_bundle: Path, prefix_folder: Path) -> None:
    data = (prefix_folder / "mail.safetensors").read_bytes()
    with Engine.load(
        llama_bundle, prefixes=prefix_folder / "news.safetensors", max_batch=1, max_length=64
    ) as engine:
        assert [task.name for task in engine.tasks()] == ["news"]
        assert engine.load_prefix(data, name="post").name == "post"
        assert [info.name for info in engine.load_prefixes(prefix_folder)] == sorted(TASKS)
        assert [(task.name, task.length) for task in engine.tasks()] == sorted(
            [*TASKS.items(), ("post", TASKS["mail"])]
        )


def test_a_compiled_text_is_the_prompt_itself(shared_engine: Engine) -> None:
    first, second = "The quick brown fox jumps", " over the lazy dog"
    prefix = shared_engine.compile(first, name="fox")
    shared_engine.load_prefix(Prefix.from_bytes(prefix.to_bytes()))
    ids = [
        *shared_engine.tokenizer.encode_prompt(first),
        *shared_engine.tokenizer.encode_prompt(second),
    ]
    whole = shared_engine.generate(ids, max_new_tokens=15, ignore_end=True)
    with_prefix = shared_engine.generate(second, task="fox", max_new_tokens=15, ignore_end=True)
    shared_engine.unload("fox")
    assert with_prefix.tokens == whole.tokens
    assert prefix.length == len(shared_engine.tokenizer.encode_prompt(first))


def test_a_compiled_text_and_its_prompt_have_one_begin_token(llama_bundle: Path) -> None:
    manifest = Manifest.load(llama_bundle)
    rules = json.loads((llama_bundle / "tokenizer.json").read_text())
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
    tokenizer = TextTokenizer(Tokenizer.from_str(json.dumps(rules)), end_ids=manifest.end_ids)
    graph = open_graph(llama_bundle, manifest, threads=1)
    with Engine(
        manifest, tokenizer, Decoder(graph, make_cache(graph, batch=1, capacity=64))
    ) as engine:
        engine.load_prefix(
            engine.compile("name: Ann |", name="ann", pack=TaskPack(prompt=" city: {input}"))
        )
        whole = engine.generate("name: Ann | city: Rome", max_new_tokens=9, ignore_end=True)
        parts = engine.generate("Rome", task="ann", max_new_tokens=9, ignore_end=True)
        assert tokenizer.encode_prompt("name: Ann |")[0] == 0
        assert parts.tokens == whole.tokens


def test_compile_behind_another_prefix(engine: Engine) -> None:
    engine.load_prefix(engine.compile("city: Rome", name="both", task="mail"))
    stacked = engine.generate(PROMPTS[0], task="both", max_new_tokens=10, ignore_end=True)
    ids = [
        *engine.tokenizer.encode_prompt("city: Rome"),
        *engine.tokenizer.encode_prompt(PROMPTS[0]),
    ]
    assert (
        stacked.tokens
        == engine.generate(ids, task="mail", max_new_tokens=10, ignore_end=True).tokens
    )


def test_prompt_lookup_gives_the_same_greedy_tokens(shared_engine: Engine) -> None:
    for name in (None, *TASKS):
        for prompt in PROMPTS:
            plain = shared_engine.generate(prompt, task=name, max_new_tokens=50, ignore_end=True)
            drafted = shared_engine.generate(
                prompt, task=name, max_new_tokens=50, ignore_end=True, lookup=6
            )
            assert drafted.tokens == plain.tokens


def test_timings_add_up(shared_engine: Engine) -> None:
    timings = shared_engine.generate(PROMPTS[0], max_new_tokens=10, ignore_end=True).timings
    assert 0 <= timings.queue_ms <= timings.first_token_ms <= timings.total_ms
    assert timings.first_token_ms == pytest.approx(timings.queue_ms + timings.prefill_ms)
    assert timings.total_ms == pytest.approx(timings.first_token_ms + timings.decode_ms)
    assert timings.tokens_per_s(10) > 0


def test_length_is_bounded_by_the_base(llama_bundle: Path) -> None:
    with Engine.load(llama_bundle, max_batch=1, max_length=100_000, threads=1) as engine:
        assert engine.max_length == 256
        assert engine.cache_bytes == 2 * 2 * 2 * 16 * 256 * 4


def test_a_closed_engine_says_so(llama_bundle: Path) -> None:
    engine = Engine.load(llama_bundle, max_batch=1, max_length=32, threads=1)
    engine.close()
    engine.close()
    with pytest.raises(EngineClosedError, match="the engine is closed; load it again"):
        engine.generate("x")


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is no bundle"):
        Engine.load(tmp_path)
    with pytest.raises(RequestError, match="max_batch=0: expected at least 1"):
        Engine.load(tmp_path, max_batch=0)
