//! One-step economics: relations of the form c = a + b or c = a · b, and percentages of round
//! numbers.

use super::fact::Fact;
use super::relation::Law::{Product, Sum};
use super::relation::Relation;
use super::relation::Term::{A, B, C};
use super::relation::{fill, numbers};
use super::topic::Topic;

const RELATIONS: [Relation; 8] = [
    Relation {
        name: "profit",
        law: Sum,
        a: numbers(10, 2..=12),
        b: numbers(10, 1..=8),
        asks: &[
            (
                "A firm has a revenue of {c} dollars and costs of {a} dollars. What is its profit in dollars?",
                B,
            ),
            (
                "A firm has costs of {a} dollars and a profit of {b} dollars. What is its revenue in dollars?",
                C,
            ),
            (
                "A firm has a revenue of {c} dollars and a profit of {b} dollars. What are its costs in dollars?",
                A,
            ),
        ],
    },
    Relation {
        name: "revenue",
        law: Product,
        a: numbers(1, 2..=12),
        b: numbers(1, 2..=10),
        asks: &[
            ("A shop sells {b} items at {a} dollars each. What is its revenue in dollars?", C),
            (
                "A shop earns {c} dollars by selling {b} items. What is the price of one in dollars?",
                A,
            ),
            ("A shop earns {c} dollars at {a} dollars an item. How many items does it sell?", B),
        ],
    },
    Relation {
        name: "wage",
        law: Product,
        a: numbers(1, 5..=15),
        b: numbers(1, 2..=9),
        asks: &[
            (
                "A worker earns {a} dollars an hour. How many dollars does the worker earn in {b} hours?",
                C,
            ),
            ("A worker earns {c} dollars in {b} hours. What is the hourly wage in dollars?", A),
        ],
    },
    Relation {
        name: "trade_balance",
        law: Sum,
        a: numbers(5, 2..=12),
        b: numbers(5, 1..=8),
        asks: &[
            (
                "A country exports {c} million dollars and imports {a} million dollars. What is its trade surplus in millions?",
                B,
            ),
            (
                "A country imports {a} million dollars and has a trade surplus of {b} million. What are its exports in millions?",
                C,
            ),
        ],
    },
    Relation {
        name: "budget",
        law: Sum,
        a: numbers(5, 2..=12),
        b: numbers(5, 1..=8),
        asks: &[
            (
                "A state takes in {a} billion and spends {c} billion. What is its deficit in billions?",
                B,
            ),
            (
                "A state takes in {a} billion and has a deficit of {b} billion. How many billions does it spend?",
                C,
            ),
        ],
    },
    Relation {
        name: "income_per_head",
        law: Product,
        a: numbers(1, 2..=10),
        b: numbers(1, 2..=10),
        asks: &[
            (
                "A village of {b} people has a total income of {c} thousand dollars. What is the income per head in thousands?",
                A,
            ),
            (
                "Each of {b} people earns {a} thousand dollars. What is their total income in thousands?",
                C,
            ),
        ],
    },
    Relation {
        name: "exchange",
        law: Product,
        a: numbers(1, 2..=10),
        b: numbers(1, 2..=10),
        asks: &[
            ("One dollar buys {a} pesos. How many pesos do {b} dollars buy?", C),
            ("One dollar buys {a} pesos. How many dollars do {c} pesos buy?", B),
        ],
    },
    Relation {
        name: "labour_force",
        law: Sum,
        a: numbers(10, 2..=10),
        b: numbers(1, 2..=12),
        asks: &[
            ("A town has {a} people in work and {b} unemployed. How large is its labour force?", C),
            ("A labour force of {c} people has {b} unemployed. How many are in work?", A),
        ],
    },
];

pub(super) fn topic() -> Topic {
    let related = RELATIONS.iter().flat_map(|relation| relation.facts("social"));
    Topic { name: "economics", questions: 470, facts: related.chain(percentages()).collect() }
}

/// Percentages that leave whole numbers: of 20, 40, … 400.
fn percentages() -> Vec<Fact> {
    let pairs = [5, 10, 20, 25, 50]
        .into_iter()
        .flat_map(|percent| (1..=20).map(move |n| (percent, 20 * n)));

    let fact = |(percent, whole): (u32, u32)| {
        let part = percent * whole / 100;
        let numbers = [("{percent}", percent), ("{whole}", whole)];
        let ask = |template: &str| [fill(template, numbers)];
        Fact::new(format!("social/percent/{percent},{whole}"))
            .ask(part, ask("A tax takes {percent}% of an income of {whole} dollars. How many dollars is the tax?"))
            .ask(part, ask("A loan of {whole} dollars costs {percent}% interest a year. How many dollars is that?"))
            .ask(whole + part, ask("A price of {whole} dollars rises by {percent}%. What is the new price in dollars?"))
            .ask(whole - part, ask("A price of {whole} dollars falls by {percent}%. What is the new price in dollars?"))
    };

    pairs.map(fact).collect()
}
