//! A topic of a domain, and the choice among its questions.

use super::fact::Fact;
use crate::Example;
use crate::shuffle::{shuffle, stream};

/// Facts of a kind, and how many questions are asked about them.
pub(super) struct Topic {
    pub(super) name: &'static str,
    pub(super) questions: usize,
    pub(super) facts: Vec<Fact>,
}

/// How often a fact is asked before another is taken in.
const WAYS: usize = 2;

impl Topic {
    /// So many examples, chosen by the seed: as many facts as it takes at two ways of asking each,
    /// then each fact once before any twice, in a random way of asking each time.
    pub(super) fn examples(&self, domain: &str, seed: u64) -> Vec<Example> {
        let mut rng = stream(seed, self.name, 0);
        let mut facts: Vec<(&Fact, Vec<usize>)> =
            self.facts.iter().map(|f| (f, (0..f.asks.len()).collect())).collect();
        shuffle(&mut facts, &mut rng);
        facts.iter_mut().for_each(|(_, order)| shuffle(order, &mut rng));
        facts.truncate(self.facts_needed(&facts));

        let rounds = facts.iter().map(|(_, order)| order.len()).max().unwrap_or(0);
        let round = |round: usize| {
            facts.iter().filter_map(move |(fact, order)| Some((fact, *order.get(round)?)))
        };
        let chosen = (0..rounds).flat_map(round).take(self.questions);
        chosen.map(|(fact, ask)| self.example(domain, fact, ask)).collect()
    }

    fn facts_needed(&self, facts: &[(&Fact, Vec<usize>)]) -> usize {
        let mut questions = 0;
        let enough = facts.iter().position(|(fact, _)| {
            questions += fact.asks.len().min(WAYS);
            questions >= self.questions
        });
        enough.map_or(facts.len(), |last| last + 1)
    }

    fn example(&self, domain: &str, fact: &Fact, index: usize) -> Example {
        let ask = &fact.asks[index];
        let id = format!("{}#{}-{index}", fact.group, self.name);
        Example::new(id, domain, &ask.question, &ask.answer).with_group(&fact.group)
    }
}
