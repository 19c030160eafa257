from anna.corpus import ontologies

OBO = r"""format-version: 1.2

[Term]
id: T:1
name: Pain
def: "A \"bad\" feeling." [source]

[Term]
id: T:3
name: Hypopigmentation
def: "Less color." []
synonym: "Pale patches" EXACT layperson []
synonym: "Hypopigmentations" EXACT plural_form []
is_a: T:1 {source="x"} ! Pain

[Term]
id: T:2
name: Swollen joint
synonym: "Joint effusion" EXACT []
synonym: "Puffy knee" RELATED []
is_a: T:1 ! Pain

[Term]
id: T:4
name: Gone
synonym: "Lost" EXACT []
is_obsolete: true
is_a: T:1

[Typedef]
id: part_of
name: part of
"""


def test_parse_obo() -> None:
    terms = ontologies.parse_obo(OBO.splitlines(keepends=True))
    assert [(term.id, term.name, term.synonyms, term.parents) for term in terms] == [
        ("T:1", "Pain", [], []),
        ("T:2", "Swollen joint", ["Joint effusion", "Puffy knee"], ["T:1"]),
        ("T:3", "Hypopigmentation", ["Pale patches"], ["T:1"]),
    ]
    assert terms[0].definition == 'A "bad" feeling.'


def test_synonyms_need_a_definition() -> None:
    rows = list(ontologies.synonyms(ontologies.parse_obo(OBO.splitlines())))
    assert rows == [{"synonym": "Pale patches", "name": "Hypopigmentation", "definition": "Less color."}]


def test_synonym_pairs_are_balanced_and_worded_differently() -> None:
    rows = list(ontologies.synonym_pairs(ontologies.parse_obo(OBO.splitlines())))
    assert [(row["name"], row["synonym"], row["is_own"]) for row in rows] == [
        ("Swollen joint", "Puffy knee", 1),
        ("Swollen joint", "Pale patches", 0),
        ("Hypopigmentation", "Pale patches", 1),
        ("Hypopigmentation", "Joint effusion", 0),
    ]


def test_a_siblings_synonym_that_is_ones_own_is_no_negative() -> None:
    terms = [
        ontologies.Term("1", "one", synonyms=["uno"], parents=["p"]),
        ontologies.Term("2", "two", synonyms=["Uno!"], parents=["p"]),
    ]
    assert list(ontologies.synonym_pairs(terms)) == []


def test_parents_and_children_are_no_siblings() -> None:
    terms = [
        ontologies.Term("1", "one", synonyms=["uno"], parents=["p"]),
        ontologies.Term("2", "two", synonyms=["due"], parents=["p", "1"]),
    ]
    assert list(ontologies.synonym_pairs(terms)) == []


def test_procedures_skip_what_is_not_current() -> None:
    objects = [
        {"type": "attack-pattern", "id": "a1", "name": "Theft", "description": "Takes <code>all</code>.(Citation: X)"},
        {"type": "attack-pattern", "id": "a2", "name": "Old", "description": "d", "revoked": True},
        {
            "type": "relationship",
            "relationship_type": "uses",
            "target_ref": "a1",
            "description": "[Bob](https://b/1) stole.",
        },
        {"type": "relationship", "relationship_type": "uses", "target_ref": "a2", "description": "no"},
        {"type": "relationship", "relationship_type": "mitigates", "target_ref": "a1", "description": "no"},
        {
            "type": "relationship",
            "relationship_type": "uses",
            "target_ref": "a1",
            "description": "no",
            "x_mitre_deprecated": True,
        },
        {"type": "attack-pattern", "name": "Nameless"},
        "no object",
    ]
    assert list(ontologies.procedures(objects)) == [
        {"procedure": "Bob stole.", "technique": "Theft", "description": "Takes all."}
    ]


def test_strip_markup() -> None:
    text = "See [the [x] page](https://a.b/c).(Citation: A (B) 2020)(Citation: C) (kept) [kept]"
    assert "Citation" not in ontologies.strip_markup(text)
    assert ontologies.strip_markup("[A](https://a.b/c) did it.(Citation: A (B) 2020)(Citation: C) (kept) [kept]") == (
        "A did it. (kept) [kept]"
    )
