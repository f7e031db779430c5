//! Rows that must stand on the same side of every split.

use std::collections::HashMap;
use std::hash::Hash;

use crate::{Example, normalize_question};

/// The rows of `examples` in sets that share no group and no normalized question, each set and the
/// sets in row order.
pub(crate) fn components(examples: &[Example]) -> Vec<Vec<usize>> {
    let mut forest = Forest { parents: (0..examples.len()).collect() };
    forest.join(examples.iter().map(|example| example.group.as_str()));
    forest.join(examples.iter().map(|example| normalize_question(&example.question)));
    forest.trees()
}

/// Disjoint sets of rows; each set's root is its first row.
struct Forest {
    parents: Vec<usize>,
}

impl Forest {
    /// Joins the rows that have equal keys.
    fn join<K: Hash + Eq>(&mut self, keys: impl Iterator<Item = K>) {
        let mut first = HashMap::new();
        for (row, key) in keys.enumerate() {
            let other = *first.entry(key).or_insert(row);
            let (a, b) = (self.root(row), self.root(other));
            self.parents[a.max(b)] = a.min(b);
        }
    }

    fn root(&mut self, mut row: usize) -> usize {
        while self.parents[row] != row {
            // Every second link is shortened on the way, which keeps the paths short.
            self.parents[row] = self.parents[self.parents[row]];
            row = self.parents[row];
        }
        row
    }

    fn trees(mut self) -> Vec<Vec<usize>> {
        let mut index = HashMap::new();
        let mut trees: Vec<Vec<usize>> = Vec::new();
        for row in 0..self.parents.len() {
            let tree = *index.entry(self.root(row)).or_insert(trees.len());
            if tree == trees.len() {
                trees.push(Vec::new());
            }
            trees[tree].push(row);
        }
        trees
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_questions_join_groups() {
        let row =
            |question: &str, group: &str| Example::new("", "d", question, "a").with_group(group);
        let rows = [
            row("one", "A"),
            row("two", "B"),
            row("three", "A"),
            row("Two!", "C"),
            row("four", "C"),
        ];
        assert_eq!(components(&rows), [vec![0, 2], vec![1, 3, 4]]);
    }
}
