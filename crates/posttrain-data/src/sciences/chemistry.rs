//! One-step chemistry: what atoms and molecules are made of, and the pH scale.

use super::fact::Fact;
use super::relation::Law::{Product, Sum};
use super::relation::Relation;
use super::relation::Term::{A, B, C};
use super::relation::numbers;
use super::topic::Topic;

/// Formulas, with the number of atoms of each element in a molecule.
const MOLECULES: [(&str, &[(&str, u32)]); 24] = [
    ("H2O", &[("hydrogen", 2), ("oxygen", 1)]),
    ("CO2", &[("carbon", 1), ("oxygen", 2)]),
    ("CH4", &[("carbon", 1), ("hydrogen", 4)]),
    ("NH3", &[("nitrogen", 1), ("hydrogen", 3)]),
    ("H2SO4", &[("hydrogen", 2), ("sulfur", 1), ("oxygen", 4)]),
    ("HNO3", &[("hydrogen", 1), ("nitrogen", 1), ("oxygen", 3)]),
    ("H3PO4", &[("hydrogen", 3), ("phosphorus", 1), ("oxygen", 4)]),
    ("C6H12O6", &[("carbon", 6), ("hydrogen", 12), ("oxygen", 6)]),
    ("C2H6O", &[("carbon", 2), ("hydrogen", 6), ("oxygen", 1)]),
    ("C3H8", &[("carbon", 3), ("hydrogen", 8)]),
    ("C4H10", &[("carbon", 4), ("hydrogen", 10)]),
    ("C8H18", &[("carbon", 8), ("hydrogen", 18)]),
    ("C6H6", &[("carbon", 6), ("hydrogen", 6)]),
    ("H2O2", &[("hydrogen", 2), ("oxygen", 2)]),
    ("SO2", &[("sulfur", 1), ("oxygen", 2)]),
    ("SO3", &[("sulfur", 1), ("oxygen", 3)]),
    ("N2O4", &[("nitrogen", 2), ("oxygen", 4)]),
    ("NO2", &[("nitrogen", 1), ("oxygen", 2)]),
    ("O3", &[("oxygen", 3)]),
    ("PCl5", &[("phosphorus", 1), ("chlorine", 5)]),
    ("SF6", &[("sulfur", 1), ("fluorine", 6)]),
    ("CCl4", &[("carbon", 1), ("chlorine", 4)]),
    ("C12H22O11", &[("carbon", 12), ("hydrogen", 22), ("oxygen", 11)]),
    ("P4O10", &[("phosphorus", 4), ("oxygen", 10)]),
];

const MASS_NUMBER: Relation = Relation {
    name: "mass_number",
    law: Sum,
    a: numbers(1, 2..=30),
    b: numbers(1, 2..=34),
    asks: &[
        ("An atom has {a} protons and {b} neutrons. What is its mass number?", C),
        ("An atom with {a} protons has the mass number {c}. How many neutrons does it have?", B),
        ("An atom with {b} neutrons has the mass number {c}. What is its atomic number?", A),
    ],
};

const MOLES: Relation = Relation {
    name: "moles",
    law: Product,
    a: numbers(2, 1..=15),
    b: numbers(1, 2..=8),
    asks: &[
        (
            "A substance has a molar mass of {a} g/mol. What is the mass in grams of {b} mol of it?",
            C,
        ),
        ("A substance has a molar mass of {a} g/mol. How many moles are {c} grams of it?", B),
    ],
};

pub(super) fn topic() -> Topic {
    let facts = atoms().chain(MOLES.facts("natural")).chain(molecules()).chain(acids()).collect();
    Topic { name: "chemistry", questions: 300, facts }
}

/// Of light atoms, which have as many neutrons as protons or a few more.
fn atoms() -> impl Iterator<Item = Fact> {
    let nuclei = (2..=30)
        .flat_map(|protons| (protons..=protons + 4).map(move |neutrons| (protons, neutrons)));
    nuclei.map(|(protons, neutrons)| MASS_NUMBER.fact("natural", protons, neutrons))
}

fn molecules() -> impl Iterator<Item = Fact> {
    let atoms =
        MOLECULES.iter().flat_map(|(formula, atoms)| atoms.iter().map(move |atom| (formula, atom)));

    atoms.map(|(formula, (element, count))| {
        let questions = [
            format!("How many {element} atoms are in one molecule of {formula}?"),
            format!("How many atoms of {element} does a molecule of {formula} contain?"),
        ];
        Fact::new(format!("natural/molecule/{formula}/{element}")).ask(count, questions)
    })
}

fn acids() -> impl Iterator<Item = Fact> {
    (0..=14).map(|ph: u32| {
        let nature = match ph {
            0..7 => "acidic",
            7 => "neutral",
            _ => "basic",
        };
        let questions = [
            format!("Is a solution of pH {ph} acidic, neutral or basic?"),
            format!("A liquid has a pH of {ph}. Is it acidic, neutral or basic?"),
        ];
        Fact::new(format!("natural/ph/{ph}")).ask(nature, questions)
    })
}
