//! A verifier on a data set's own references: whether the two fit each other, before anything is
//! trained.

use std::fmt;

use crate::{RewardError, Sample, Score, Verifier};

/// Rows that are shown of each kind.
const SHOWN: usize = 5;

/// What a verifier makes of references: each should be right as the answer to its own question, and
/// wrong as the answer to another one.
///
/// A reference that is not right against itself can be reached by no policy; one that another row's
/// answer reaches is rewarded for nothing.
///
/// ```
/// use posttrain_answer::number::Numeric;
/// use posttrain_reward::Sample;
/// use posttrain_reward::audit::ReferenceCheck;
/// use posttrain_reward::verifiers::NumericMatch;
///
/// let verifier = NumericMatch::new(Numeric::default())?;
/// let rows = ["7", "8", "nine", "10"].map(|reference| Sample::new("?", reference, ""));
/// let check = ReferenceCheck::of(&verifier, &rows);
/// assert_eq!((check.rows, check.unreachable.len(), check.confused.len()), (4, 1, 0));
/// assert!(check.to_string().contains("`nine`"), "{check}");
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReferenceCheck {
    /// Rows that were looked at.
    pub rows: usize,
    /// References that are not right against themselves.
    pub unreachable: Vec<ReferenceFault>,
    /// References that another row's reference is right against, though its text is another one.
    pub confused: Vec<ReferenceFault>,
}

/// A reference that a verifier does not fit.
///
/// ```
/// let fault = posttrain_reward::audit::ReferenceFault { id: "7".into(), reference: "x".into(), said: "0".into() };
/// assert_eq!(fault.to_string(), "7: `x`: 0");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceFault {
    /// The row's id.
    pub id: String,
    /// The reference, at most 80 characters of it.
    pub reference: String,
    /// What the verifier said: the score and its note, or the error.
    pub said: String,
}

impl fmt::Display for ReferenceFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: `{}`: {}", self.id, self.reference, self.said)
    }
}

impl ReferenceCheck {
    /// Runs `verifier` over the references of `rows`, whose responses are not looked at. Another
    /// row is the next one whose reference has another text.
    ///
    /// ```
    /// use posttrain_reward::audit::ReferenceCheck;
    /// use posttrain_reward::verifiers::ExactMatch;
    ///
    /// assert!(ReferenceCheck::of(&ExactMatch, &[]).is_clean());
    /// ```
    pub fn of(verifier: &dyn Verifier, rows: &[Sample]) -> Self {
        let mut check = Self { rows: rows.len(), ..Self::default() };

        for (index, row) in rows.iter().enumerate() {
            let own = answered(verifier, row, &row.reference);
            if !own.as_ref().is_ok_and(|score| score.value() >= 1.0) {
                check.unreachable.push(fault(row, &own));
                continue;
            }

            let after = rows[index + 1..].iter().chain(&rows[..index]);
            let other =
                after.map(|row| &row.reference).find(|other| other.trim() != row.reference.trim());
            let other = other.map(|other| answered(verifier, row, other));
            if let Some(other) =
                other.filter(|other| other.as_ref().is_ok_and(|score| score.value() > 0.0))
            {
                check.confused.push(fault(row, &other));
            }
        }
        check
    }

    /// Whether every reference is right against itself and no other.
    ///
    /// ```
    /// assert!(posttrain_reward::audit::ReferenceCheck::default().is_clean());
    /// ```
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.unreachable.is_empty() && self.confused.is_empty()
    }
}

impl fmt::Display for ReferenceCheck {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            (&self.unreachable, "are not right against themselves"),
            (&self.confused, "are reached by another row's"),
        ];
        for (faults, what) in kinds.into_iter().filter(|(faults, _)| !faults.is_empty()) {
            writeln!(out, "{} of {} references {what}:", faults.len(), self.rows)?;
            for fault in faults.iter().take(SHOWN) {
                writeln!(out, "  {fault}")?;
            }
        }
        Ok(())
    }
}

fn answered(verifier: &dyn Verifier, row: &Sample, response: &str) -> Result<Score, RewardError> {
    verifier.verify(&Sample { response: response.to_owned(), ..row.clone() })
}

fn fault(row: &Sample, outcome: &Result<Score, RewardError>) -> ReferenceFault {
    let said = match outcome {
        Ok(score) => match score.note() {
            Some(note) => format!("{} ({note})", score.value()),
            None => score.value().to_string(),
        },
        Err(error) => error.report(),
    };

    ReferenceFault { id: row.id.clone(), reference: row.reference.chars().take(80).collect(), said }
}
