"""lmms-eval's requests through the one generator: our own answers, exact losses, and refusals by name."""

from dataclasses import replace

import pytest
import torch
from lmms_requests import continuing, generating
from PIL import Image
from vinnow.evaluate.config import EvalConfig
from vinnow.evaluate.lmms.asking import UNASKED, UNLIKELY, Asking
from vinnow.evaluate.lmms.clusters import check_file, read_clusters, write_clusters
from vinnow.evaluate.lmms.config import LmmsConfig
from vinnow.evaluate.lmms.requests import read_request, sampling_of
from vinnow.evaluate.run import evaluate
from vinnow.evaluate.talk import open_generator
from vinnow.pool.encode import IGNORE
from vinnow.pool.images import load_image
from vinnow.pool.reader import Pool
from vinnow.pool.refusals import IMAGE
from vinnow.store.errors import InputError
from vinnow.store.tables import EVALS, read_rows


@pytest.fixture(scope="module")
def config(tiny_model):
    return LmmsConfig.fitting(tiny_model, {"device": "cpu", "batch_size": "8"})


@pytest.fixture(scope="module")
def generator(config):
    return open_generator(config)


@pytest.fixture(scope="module")
def records(tiny_pool):
    pool = Pool(tiny_pool)
    return pool.take(pool.ids())


class Documents:
    """A task's documents, and how they are seen."""

    def __init__(self, records, root):
        self.by_task, self.root = {"tiny": {"test": records}}, root

    def visual(self, record):
        return [load_image(self.root, image) for image in record.images]


@pytest.fixture(scope="module")
def documents(records, tiny_pool):
    return Documents(records, Pool(tiny_pool).image_root)


def question(record):
    return record.conversations[0]["value"].removeprefix(f"{IMAGE}\n")


def asked(instances, documents):
    return [read_request(i, documents.by_task) for i in instances]


def test_answers_are_those_of_evaluate(tiny_model, tiny_pool, generator, config, records, documents, tmp_path):
    own = EvalConfig(model=tiny_model, pool=tiny_pool, run="r", max_new_tokens=6)
    rows = read_rows(evaluate(own, str(tmp_path / "out"), here=True).path, EVALS).to_pylist()
    wanted = {row["sample"]: row["answer"] for row in rows}
    setting = {"max_new_tokens": 6, "temperature": 0, "do_sample": False, "num_beams": 1, "until": ["</s>"]}
    instances = [generating(i, question(r), documents.visual, **setting) for i, r in enumerate(records)]
    steps, told = [], []
    replies = Asking(generator, config, told.append, steps.append).answers(asked(instances, documents))
    assert [r.text for r in replies] == [wanted[str(r.sample_id)] for r in records]
    assert len({r.text for r in replies}) > 10
    assert (told, sum(steps), len(steps)) == ([], 60, 4)


def test_marks_in_a_text_stay_and_others_go_in_front(generator, config, documents, records):
    two = [Image.new("RGB", (20, 30), c) for c in ("red", "blue")]
    texts = ["what?", f"{IMAGE} and {IMAGE}: what?"]
    requests = asked([generating(0, t, lambda record: two, max_new_tokens=3) for t in texts], documents)
    replies = Asking(generator, config).answers(requests)
    by_hand = [generator.encode([human(t)], two) for t in (f"{IMAGE} {IMAGE}\nwhat?", texts[1])]
    assert [r.prompt_tokens for r in replies] == [len(p.input_ids) for p in by_hand]


def test_which_picture_a_document_shows(generator, config, tmp_path):
    red, blue = (Image.new("RGB", (20, 30), c) for c in ("red", "blue"))
    shown = [[red], [blue, red], [], [red.copy()], [Image.new("RGB", (30, 20), "red")]]
    documents = Documents(shown, "")
    instances = [generating(i, "what?", lambda images: images, max_new_tokens=1) for i in range(5)]
    asking = Asking(generator, config)
    asking.answers(asked(instances, documents))
    assert asking.pictures == {}
    path = str(tmp_path / "clusters.jsonl")
    asking = Asking(generator, config.model_copy(update={"clusters": path}))
    asking.answers(asked(instances, documents))
    hashes = [asking.pictures.get(("tiny", i)) for i in range(5)]
    assert hashes[2] is None
    assert hashes[0] == hashes[3]
    assert len(set(hashes)) == 4
    write_clusters(path, asking.pictures)
    write_clusters(path, {("other", 0): "x"})
    assert read_clusters([path], "tiny") == {i: h for i, h in enumerate(hashes) if h}
    assert read_clusters([path, path], "other") == {0: "x"}
    (tmp_path / "clash.jsonl").write_text('{"task": "tiny", "doc_id": 3, "picture": "y"}\n')
    (tmp_path / "note.txt").write_text("mine")
    for paths, task, words in (
        ([path, str(tmp_path / "clash.jsonl")], "tiny", "another picture of document 3 of tiny"),
        ([path], "pope", "nothing is said there of the documents of pope"),
        ([path + "x"], "tiny", "there is no"),
    ):
        with pytest.raises(InputError, match=words):
            read_clusters(paths, task)
    for refused in (check_file, lambda p: write_clusters(p, {("t", 0): "x"})):
        with pytest.raises(InputError, match="is no file of clusters"):
            refused(str(tmp_path / "note.txt"))
    assert (tmp_path / "note.txt").read_text() == "mine"


def human(text):
    from vinnow.evaluate.generator import Turn

    return Turn("human", text)


def test_a_loss_is_that_of_the_model_alone(generator, config, records, documents):
    instances = [
        continuing(0, question(records[0]), f" {word}", documents.visual) for word in ("yes", "red blue", "no")
    ]
    instances.append(continuing(4, question(records[4]), lambda r: r.conversations[1]["value"], documents.visual))
    asking = Asking(generator, config)
    requests = asked(instances, documents)
    measured = asking.losses(requests)
    for request, (loss, greedy) in zip(requests, measured, strict=True):
        row = asking._with_answer(request)
        assert (row.labels != IGNORE).sum() >= 2  # words and the end mark
        inputs = generator.inputs([row])
        with torch.no_grad():
            out = generator.model(
                **generator.family.generating(generator.model, inputs), labels=inputs["labels"], return_dict=True
            )
        assert loss == pytest.approx(float(out.loss), rel=1e-5)
        assert not greedy
    assert len({round(loss, 5) for loss, _ in measured}) == 4


def test_what_greedy_decoding_would_say(generator, config, records, documents):
    from vinnow.evaluate.lmms.asking import _Row
    from vinnow.evaluate.sampling import Sampling

    asking = Asking(generator, config)
    row = asking._with_answer(asked([continuing(0, "what?", "red", documents.visual)], documents)[0])
    with torch.no_grad():
        likeliest_T = generator.model(**generator.family.generating(generator.model, generator.inputs([row]))).logits[0]
    labels_T = row.labels.copy()
    trained_T = labels_T != IGNORE
    labels_T[trained_T] = likeliest_T.argmax(-1).roll(1).numpy()[trained_T]
    rows = [_Row(i, replace(row, labels=labels), Sampling()) for i, labels in enumerate((labels_T, row.labels))]
    (loss, greedy), (other, said) = asking._measured(rows)
    assert (greedy, said) == (True, False)
    assert loss < other


def test_draws_differ_from_request_to_request_and_not_from_run_to_run(generator, config, documents):
    instances = [generating(0, "what?", documents.visual, max_new_tokens=6, temperature=1, do_sample=True)] * 4
    first, again = (Asking(generator, config).answers(asked(instances, documents)) for _ in range(2))
    assert len({r.tokens for r in first}) > 1
    assert first == again


def test_what_cannot_be_asked_is_told_and_limited(generator, config, documents):
    long, wrong = "word " * 3000, f"{IMAGE}{IMAGE}{IMAGE} what?"
    damaged = Image.new("RGB", (8, 8))
    damaged.format = "EPS"
    instances = [
        generating(0, long, documents.visual, max_new_tokens=2),
        generating(1, wrong, documents.visual, max_new_tokens=2),
        generating(2, "what?", lambda record: [damaged], max_new_tokens=2),
        *[generating(i, "what?", documents.visual, max_new_tokens=2) for i in range(4)],
    ]
    requests, told = asked(instances, documents), []
    with pytest.raises(InputError, match=r"3 of 7 requests could not be asked .*over max_refused \(5\.0%\)"):
        Asking(generator, config).answers(requests)
    patient = config.model_copy(update={"max_refused": 0.5})
    replies = Asking(generator, patient, told.append).answers(requests)
    assert replies[:3] == [UNASKED] * 3
    assert all(r.text or r.tokens for r in replies[3:])
    assert [t.split(":")[0] for t in told[:3]] == [
        "task tiny, document 0, cannot be asked (not_encodable)",
        "task tiny, document 1, cannot be asked (not_encodable)",
        "task tiny, document 2, cannot be asked (image_unreadable)",
    ]
    assert "not_encodable 2, image_unreadable 1" in told[3]
    losses = Asking(generator, patient, told.append).losses(
        asked([continuing(0, "what?", text, documents.visual) for text in ("", "red")], documents)
    )
    assert losses[0] == UNLIKELY
    assert losses[1][0] < 20


@pytest.mark.parametrize(
    ("visual", "words"),
    [("clip.mp4", r"a path \('clip.mp4'\), as a video's"), ({"array": []}, "a sound"), (b"x", "of type bytes")],
)
def test_other_media_are_refused_by_name(generator, config, documents, visual, words):
    requests = asked([generating(3, "what?", lambda record: [visual])], documents)
    with pytest.raises(InputError, match=f"task tiny, document 3, picture 1 is {words}"):
        Asking(generator, config).answers(requests)


def sampled(**setting):
    told = []
    request = read_request(generating(0, "what?", list, **setting), {})
    return sampling_of(request, 7, 1024, 100, told.append), told


def test_what_a_task_says_of_generation():
    plain, told = sampled()
    assert (plain.max_new_tokens, plain.temperature, plain.stop, told) == (1024, 0, (), [])
    greedy, told = sampled(do_sample=False, temperature=0.2, top_p=0, max_new_tokens=16, until=["\n", "", "\n", "Q:"])
    assert (greedy.temperature, greedy.max_new_tokens, greedy.stop) == (0, 16, ("\n", "Q:"))
    assert "the likeliest tokens are taken" in told[0]
    drawn, told = sampled(temperature=0.7, top_p=0.9, top_k=5, until="\n\n")
    assert (drawn.temperature, drawn.top_p, drawn.top_k, drawn.seed, drawn.stop) == (0.7, 0.9, 5, 107, ("\n\n",))
    assert sampled(do_sample=True)[0].temperature == 1
    assert sampled(do_sample=True, temperature=0, seed=3)[0].temperature == 0
    assert "image_aspect_ratio='pad', which is not followed" in sampled(image_aspect_ratio="pad")[1][0]
    assert sampled(num_beams=1, repetition_penalty=1.0, skip_special_tokens=True)[1] == []


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"num_beams": 5}, "num_beams=5; only 1"),
        ({"repetition_penalty": 1.2}, "repetition_penalty=1.2"),
        ({"skip_special_tokens": False}, "skip_special_tokens=False"),
        ({"max_new_token": 5}, "'max_new_token', which is not known here; did you mean 'max_new_tokens'"),
        ({"max_agentic_steps": 8}, "'max_agentic_steps'"),
        ({"until": 5}, "until=5"),
        ({"temperature": 1, "do_sample": True, "top_p": 0}, "top_p"),
    ],
)
def test_what_is_not_known_is_refused_by_name(setting, words):
    with pytest.raises(InputError, match=f"task tiny: generation_kwargs.*{words}"):
        sampled(**setting)


def test_requests_of_another_shape_are_refused():
    for instance, words in (
        (continuing(0, "", "red", list), None),
        (type("I", (), {"args": ("", "red"), "task_name": "t"})(), "acc_mutual_info"),
        (type("I", (), {"args": tuple("abcdefg"), "task_name": "t"})(), "7 arguments"),
    ):
        if words:
            with pytest.raises(InputError, match=words):
                read_request(instance, {})
        else:
            assert read_request(instance, {}).continuation() == "red"
