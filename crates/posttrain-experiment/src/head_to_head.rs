//! Two lists of verdicts over the same questions, as a head-to-head.

use crate::{DomainOutcome, ExperimentError, HeadToHead};
use posttrain_statistics::{McNemar, PairCounts, PairedBootstrap, PairedVerdicts};
use std::collections::BTreeMap;

/// Compares verdicts question by question: accuracies, their difference with a paired bootstrap
/// interval (10,000 draws), and McNemar's exact test. Questions whose verdict failed on either side
/// are left out of all of it, and counted.
///
/// ```
/// use posttrain_experiment::head_to_head;
///
/// let routed = [Some(true), Some(true), Some(false), Some(true), None];
/// let generalist = [Some(false), Some(true), Some(false), Some(false), Some(true)];
/// let outcome = head_to_head(&routed, &generalist, 7)?;
/// assert_eq!((outcome.routed.share, outcome.generalist.share), (0.75, 0.25));
/// assert_eq!((outcome.routed_only, outcome.generalist_only, outcome.left_out), (2, 0, 1));
/// assert_eq!(outcome.difference, 0.5);
/// assert!((outcome.mcnemar_p - 0.5).abs() < 1e-12); // 2 · 1/2²
/// # Ok::<(), posttrain_experiment::ExperimentError>(())
/// ```
///
/// # Errors
/// [`ExperimentError::Unpaired`] if the lists differ in length.
pub fn head_to_head(
    routed: &[Option<bool>],
    generalist: &[Option<bool>],
    seed: u64,
) -> Result<HeadToHead, ExperimentError> {
    check_length("generalist", routed.len(), generalist.len())?;
    Ok(compare(&PairedVerdicts::new(routed, generalist)?, seed))
}

/// [`head_to_head`] with the bootstrap drawn within each domain, and the sides on each domain's
/// questions.
///
/// ```
/// use posttrain_experiment::head_to_head_by_domain;
///
/// let (routed, generalist) = ([Some(true), Some(false)], [Some(true), Some(true)]);
/// let outcome = head_to_head_by_domain(&routed, &generalist, &["math", "social"], 7)?;
/// assert_eq!(outcome.per_domain["social"].generalist.share, 1.0);
/// // One question a domain: drawn anew, it is the same.
/// assert_eq!((outcome.low, outcome.high), (-0.5, -0.5));
/// # Ok::<(), posttrain_experiment::ExperimentError>(())
/// ```
///
/// # Errors
/// [`ExperimentError::Unpaired`] if the lists differ in length.
pub fn head_to_head_by_domain(
    routed: &[Option<bool>],
    generalist: &[Option<bool>],
    domains: &[&str],
    seed: u64,
) -> Result<HeadToHead, ExperimentError> {
    check_length("generalist", routed.len(), generalist.len())?;
    check_length("domains", routed.len(), domains.len())?;

    let pairs = PairedVerdicts::by_stratum(routed, generalist, domains)?;
    let per_domain =
        pairs.strata().map(|(domain, counts)| (domain.to_owned(), sides(&counts))).collect();
    Ok(HeadToHead { per_domain, ..compare(&pairs, seed) })
}

fn check_length(
    argument: &'static str,
    expected: usize,
    got: usize,
) -> Result<(), ExperimentError> {
    if expected == got {
        Ok(())
    } else {
        Err(ExperimentError::Unpaired { argument, expected, got })
    }
}

fn sides(counts: &PairCounts) -> DomainOutcome {
    DomainOutcome { routed: counts.first(), oracle: None, generalist: counts.second() }
}

fn compare(pairs: &PairedVerdicts, seed: u64) -> HeadToHead {
    let counts = pairs.counts();
    // Of no questions nothing is known: the difference may be anything.
    let (low, high) =
        PairedBootstrap::default().interval(&pairs.differences(), seed).unwrap_or((-1.0, 1.0));
    let test = McNemar::new(counts.first_only, counts.second_only);

    HeadToHead {
        routed: counts.first(),
        oracle: None,
        generalist: counts.second(),
        difference: counts.difference(),
        low,
        high,
        mcnemar_p: test.p,
        mcnemar_mid_p: Some(test.mid_p),
        routed_only: counts.first_only,
        generalist_only: counts.second_only,
        left_out: pairs.left_out(),
        per_domain: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_different_lengths_are_refused_by_name() {
        let verdicts = [Some(true); 3];
        let error = head_to_head(&verdicts, &verdicts[..2], 1).unwrap_err();
        assert_eq!(error.to_string(), "`generalist`: expected one for each of 3 questions, got 2");
        let error = head_to_head_by_domain(&verdicts, &verdicts, &["math"], 1).unwrap_err();
        assert_eq!(error.to_string(), "`domains`: expected one for each of 3 questions, got 1");
    }

    #[test]
    fn no_verdicts_say_nothing() {
        let outcome = head_to_head(&[None, Some(true)], &[Some(true), None], 1).unwrap();
        assert_eq!(
            (outcome.difference, outcome.low, outcome.high, outcome.mcnemar_p),
            (0.0, -1.0, 1.0, 1.0)
        );
        assert_eq!((outcome.routed.n, outcome.left_out), (0, 2));
    }
}
