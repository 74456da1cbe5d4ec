"""RFC 6962 hashes and proofs: the known answers of the Certificate Transparency reference tests, and properties."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit import merkle

LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = [  # index, size, proof
    (0, 1, []),
    (
        0,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (
        1,
        5,
        [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]
CONSISTENCY = [  # first, second, proof
    (1, 1, []),
    (
        1,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]
KNOWN = merkle.Tree([merkle.leaf_hash(leaf) for leaf in LEAVES])
leaf_lists = st.lists(st.binary(max_size=8), min_size=1, max_size=70)


def root_as_the_rfc_defines_it(leaves: list[bytes]) -> bytes:
    """MTH(D[n]) of RFC 6962 §2.1, word by word."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    left, right = root_as_the_rfc_defines_it(leaves[:k]), root_as_the_rfc_defines_it(leaves[k:])
    return hashlib.sha256(b"\x01" + left + right).digest()


@pytest.mark.parametrize("size", range(9))
def test_known_roots(size):
    growing = merkle.CompactRange()
    for leaf in LEAVES[:size]:
        growing.append(merkle.leaf_hash(leaf))
    assert growing.root().hex() == ROOTS[size]
    assert KNOWN.root(size).hex() == ROOTS[size]


@pytest.mark.parametrize(("index", "size", "proof"), INCLUSION)
def test_known_inclusion_proofs(index, size, proof):
    assert [step.hex() for step in KNOWN.inclusion_proof(index, size)] == proof


@pytest.mark.parametrize(("first", "second", "proof"), CONSISTENCY)
def test_known_consistency_proofs(first, second, proof):
    assert [step.hex() for step in KNOWN.consistency_proof(first, second)] == proof


@given(leaf_lists)
def test_every_way_to_the_root_agrees_with_the_definition(leaves):
    hashes = [merkle.leaf_hash(leaf) for leaf in leaves]
    growing = merkle.CompactRange()
    for leaf in hashes:
        growing.append(leaf)
    assert growing.root() == merkle.Tree(hashes).root() == root_as_the_rfc_defines_it(leaves)
    assert merkle.CompactRange(growing.size, growing.peaks).root() == growing.root()


@given(leaf_lists, st.data())
def test_inclusion_proofs_hold_and_forgeries_do_not(leaves, data):
    tree = merkle.Tree([merkle.leaf_hash(leaf) for leaf in leaves])
    size = data.draw(st.integers(1, tree.size))
    index = data.draw(st.integers(0, size - 1))
    leaf, root = merkle.leaf_hash(leaves[index]), tree.root(size)
    proof = tree.inclusion_proof(index, size)
    assert merkle.verify_inclusion(leaf, index, size, proof, root)
    assert not merkle.verify_inclusion(merkle.leaf_hash(leaves[index] + b"x"), index, size, proof, root)
    assert not merkle.verify_inclusion(leaf, index, size, [*proof, root], root)
    assert not merkle.verify_inclusion(leaf, size, size, proof, root)
    for step in range(len(proof)):
        bent = [*proof[:step], bytes(32), *proof[step + 1 :]]
        assert not merkle.verify_inclusion(leaf, index, size, bent, root)
        assert not merkle.verify_inclusion(leaf, index, size, proof[:step] + proof[step + 1 :], root)


@given(leaf_lists, st.data())
def test_consistency_proofs_hold_and_forgeries_do_not(leaves, data):
    tree = merkle.Tree([merkle.leaf_hash(leaf) for leaf in leaves])
    second = data.draw(st.integers(1, tree.size))
    first = data.draw(st.integers(1, second))
    old, new = tree.root(first), tree.root(second)
    proof = tree.consistency_proof(first, second)
    assert merkle.verify_consistency(first, old, second, new, proof)
    assert not merkle.verify_consistency(first, bytes(32), second, new, proof)
    assert not merkle.verify_consistency(first, old, second, bytes(32), proof)
    for step in range(len(proof)):
        bent = [*proof[:step], bytes(32), *proof[step + 1 :]]
        assert not merkle.verify_consistency(first, old, second, new, bent)


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(ValueError):
        KNOWN.inclusion_proof(8)
    with pytest.raises(ValueError):
        KNOWN.inclusion_proof(0, 9)
    with pytest.raises(ValueError):
        KNOWN.consistency_proof(0, 8)
    with pytest.raises(ValueError):
        merkle.CompactRange(3, [bytes(32)])
    assert not merkle.verify_inclusion(bytes(32), 0, 0, [], merkle.EMPTY_ROOT)
    assert not merkle.verify_consistency(2, bytes(32), 1, bytes(32), [])
    assert not merkle.verify_consistency(3, bytes(32), 5, bytes(32), [])
    assert merkle.Tree([]).root() == merkle.EMPTY_ROOT
