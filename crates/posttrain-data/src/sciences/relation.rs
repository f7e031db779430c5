//! Facts of small numbers: c = a + b or c = a · b, each of the three asked from the other two.

use std::ops::RangeInclusive;

use super::fact::Fact;

/// A relation between three quantities, with questions for one from the other two.
pub(super) struct Relation {
    /// Names the groups, together with the two numbers.
    pub(super) name: &'static str,
    pub(super) law: Law,
    pub(super) a: Numbers,
    pub(super) b: Numbers,
    /// Questions in which `{a}`, `{b}` and `{c}` stand for the numbers, with the one that is asked
    /// for.
    pub(super) asks: &'static [(&'static str, Term)],
}

#[derive(Clone, Copy)]
pub(super) enum Law {
    Sum,
    Product,
}

#[derive(Clone, Copy)]
pub(super) enum Term {
    A,
    B,
    C,
}

/// The multiples of `step` by these factors.
pub(super) struct Numbers {
    pub(super) step: u32,
    pub(super) factors: RangeInclusive<u32>,
}

/// `factors` times `step`.
pub(super) const fn numbers(step: u32, factors: RangeInclusive<u32>) -> Numbers {
    Numbers { step, factors }
}

impl Numbers {
    fn iter(&self) -> impl Iterator<Item = u32> {
        self.factors.clone().map(|factor| factor * self.step)
    }
}

impl Relation {
    /// A fact for each pair of numbers.
    pub(super) fn facts(&self, domain: &str) -> Vec<Fact> {
        self.a.iter().flat_map(|a| self.b.iter().map(move |b| self.fact(domain, a, b))).collect()
    }

    /// The fact of these two numbers.
    pub(super) fn fact(&self, domain: &str, a: u32, b: u32) -> Fact {
        let c = match self.law {
            Law::Sum => a + b,
            Law::Product => a * b,
        };

        let fact = Fact::new(format!("{domain}/{}/{a},{b}", self.name));
        self.asks.iter().fold(fact, |fact, (question, term)| {
            let answer = match term {
                Term::A => a,
                Term::B => b,
                Term::C => c,
            };
            fact.ask(answer, [fill(question, [("{a}", a), ("{b}", b), ("{c}", c)])])
        })
    }
}

/// The template with its placeholders replaced.
pub(super) fn fill<const N: usize>(template: &str, values: [(&str, u32); N]) -> String {
    values
        .iter()
        .fold(template.to_owned(), |text, (name, value)| text.replace(name, &value.to_string()))
}
