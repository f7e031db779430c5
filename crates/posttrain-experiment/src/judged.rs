//! A judge's verdicts on answers that a verifier has judged already.

use crate::{ExperimentError, JudgeReport};
use posttrain_recipes::Answer;
use posttrain_reward::{Reward, Sample, Scorer, ScorerConfig};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A verdict, or why there is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Verdict {
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reward: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

impl Verdict {
    pub fn is_right(&self) -> Option<bool> {
        self.reward.map(|reward| reward > 0.5)
    }
}

/// Where a side's verdicts are.
pub(crate) fn file(folder: &Path, side: &str) -> PathBuf {
    folder.join("judge").join(format!("{side}.json"))
}

/// The judge's verdict on each answer, in their order.
pub(crate) fn judge(
    judge: Arc<dyn Reward>,
    answers: &[Answer],
    config: &ScorerConfig,
) -> Result<Vec<Verdict>, ExperimentError> {
    let runtime = tokio::runtime::Runtime::new()
        .map_err(ExperimentError::io(Path::new("the judge's threads")))?;
    let mut scorer = Scorer::new(judge, config, runtime.handle().clone())?;

    for answer in answers {
        scorer.push(sample(answer))?;
    }
    let scores = scorer.finish()?;

    Ok(answers
        .iter()
        .zip(scores)
        .map(|(answer, score)| Verdict {
            id: answer.id.clone(),
            reward: score.as_ref().ok().map(posttrain_reward::Score::value),
            error: score.as_ref().err().map(posttrain_reward::RewardError::report),
        })
        .collect())
}

fn sample(answer: &Answer) -> Sample {
    let mut sample = Sample::new(&answer.question, &answer.reference, &answer.response);
    sample.id.clone_from(&answer.id);
    sample.domain.clone_from(&answer.domain);
    sample.tokens = Some(answer.tokens);
    sample.termination = answer.finish_reason;
    sample
}

/// How far judge and verifier agree over the answers of both sides.
pub(crate) fn agreement(pairs: &[(Option<bool>, Option<bool>)]) -> JudgeReport {
    let both: Vec<(bool, bool)> =
        pairs.iter().filter_map(|(judge, verifier)| Some(((*judge)?, (*verifier)?))).collect();

    let count = |which: fn(&(bool, bool)) -> bool| both.iter().filter(|pair| which(pair)).count();
    let judge_alone = count(|(j, v)| *j && !*v);
    let verifier_alone = count(|(j, v)| !*j && *v);
    let n = both.len() as f64;
    let share = |k: usize| k as f64 / n;
    let agreement = (!both.is_empty()).then(|| 1.0 - share(judge_alone + verifier_alone));

    // Cohen's κ: agreement beyond what the two would reach by chance with their shares of "right".
    let judge = share(count(|(j, _)| *j));
    let verifier = share(count(|(_, v)| *v));
    let chance = judge * verifier + (1.0 - judge) * (1.0 - verifier);
    let kappa =
        agreement.filter(|_| chance < 1.0).map(|agreement| (agreement - chance) / (1.0 - chance));

    JudgeReport {
        compared: both.len(),
        failed: pairs.iter().filter(|(judge, _)| judge.is_none()).count(),
        agreement,
        kappa,
        judge_alone,
        verifier_alone,
        ..JudgeReport::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kappa_is_agreement_beyond_chance() {
        // 20 both right, 15 both wrong, 5 the judge alone, 10 the verifier alone: agreement 0.7,
        // chance 0.5, κ = 0.4.
        let cells = [(true, true, 20), (false, false, 15), (true, false, 5), (false, true, 10)];
        let mut pairs: Vec<_> = cells
            .iter()
            .flat_map(|&(j, v, n)| std::iter::repeat_n((Some(j), Some(v)), n))
            .collect();
        pairs.push((None, Some(true)));
        let report = agreement(&pairs);
        assert_eq!(
            (report.compared, report.failed, report.judge_alone, report.verifier_alone),
            (50, 1, 5, 10)
        );
        assert!((report.agreement.unwrap_or(0.0) - 0.7).abs() < 1e-12);
        assert!((report.kappa.unwrap_or(0.0) - 0.4).abs() < 1e-12);
        assert_eq!(agreement(&[]).kappa, None);
    }
}
