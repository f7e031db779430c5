//! Asking a judge several times and counting.

use std::sync::Arc;

use futures::stream::{FuturesUnordered, StreamExt};
use posttrain_chat::{ChatModel, ChatRequest, ChatResponse, ResponseFormat};

use crate::RewardError;
use crate::judge::ballot::{Ballot, Vote};
use crate::judge::data::JudgeData;
use crate::judge::prompt::{CompiledPrompt, PromptValues};
use crate::judge::transcript::{Entry, Transcript};
use crate::judge::{Criterion, JudgeConfig, JudgePrompt, JudgeProvenance, NoVerdict, ReferenceUse};

/// A model with a prompt: what every kind of judge asks.
pub(crate) struct Panel {
    pub config: JudgeConfig,
    model: Arc<dyn ChatModel>,
    prompt: CompiledPrompt,
    ballot: Ballot,
    format: ResponseFormat,
    provenance: JudgeProvenance,
    transcript: Option<Transcript>,
}

/// What is to be judged.
pub(crate) struct Case<'a> {
    pub id: &'a str,
    pub data: JudgeData,
    /// The texts whose words are not to be taken for the judge's.
    pub shown: Vec<&'a str>,
}

/// Votes that have been counted.
pub(crate) struct Tally {
    /// For each field, the word that more than half chose; none where there is no such word among
    /// all votes.
    pub choices: Vec<Option<usize>>,
    /// For each field, the votes for each word.
    pub counts: Vec<Vec<usize>>,
    /// The first of the counted votes' reasoning.
    pub reasoning: String,
    /// The model, in its server's word.
    pub model: String,
}

impl Panel {
    pub(crate) fn new(
        config: JudgeConfig,
        model: Arc<dyn ChatModel>,
        built_in: &JudgePrompt,
        ballot: Ballot,
        criteria: Vec<Criterion>,
    ) -> Result<Self, RewardError> {
        config.validate()?;
        let has_reference = config.reference == ReferenceUse::Required;
        let values = PromptValues {
            instructions: config.instructions.trim().to_owned(),
            criteria,
            has_reference,
        };
        let prompt = config.prompt.as_ref().unwrap_or(built_in).compile(&values)?;
        let transcript = config.transcript.as_deref().map(Transcript::open).transpose()?;
        let provenance = JudgeProvenance {
            model: model.name().to_owned(),
            identity: model.identity(),
            prompt: prompt.digest.clone(),
            sampling: config.sampling.clone(),
            votes: config.votes,
        };
        Ok(Self { config, model, prompt, format: ballot.format(), ballot, provenance, transcript })
    }

    pub(crate) fn provenance(&self) -> &JudgeProvenance {
        &self.provenance
    }

    /// All votes at the same time, until the rest can change nothing.
    pub(crate) async fn ask(&self, case: &Case<'_>) -> Result<Tally, RewardError> {
        let votes = self.config.votes;
        let asked = (0..votes).map(|vote| async move { (vote, self.vote(case, vote).await) });
        let mut asked: FuturesUnordered<_> = asked.collect();
        let (mut cast, mut failures) = (Vec::new(), Vec::new());
        while let Some((index, outcome)) = asked.next().await {
            match outcome {
                Ok((vote, model)) => cast.push((index, vote, model)),
                Err(error) => failures.push((index, error)),
            }
            let counts = self.count(cast.iter().map(|(_, vote, _)| vote));
            let decided = counts.iter().all(|words| words.iter().any(|count| 2 * count > votes));
            if decided || asked.is_empty() {
                return self.tally(cast, failures, counts);
            }
        }
        // There is at least one vote, so that the loop has returned.
        Err(self.no_verdict(case.id, NoVerdict::Empty, ""))
    }

    /// A failed vote is on no side: where it keeps a majority from being one, it is the outcome.
    fn tally(
        &self,
        mut cast: Vec<(usize, Vote, String)>,
        mut failures: Vec<(usize, RewardError)>,
        counts: Vec<Vec<usize>>,
    ) -> Result<Tally, RewardError> {
        let majority =
            |words: &Vec<usize>| words.iter().position(|count| 2 * count > self.config.votes);
        let choices: Vec<Option<usize>> = counts.iter().map(majority).collect();
        failures.sort_by_key(|(index, _)| *index);
        if choices.contains(&None)
            && let Some((_, error)) = failures.into_iter().next()
        {
            return Err(error);
        }
        cast.sort_by_key(|(index, ..)| *index);
        let (reasoning, model) = cast
            .into_iter()
            .next()
            .map(|(_, vote, model)| (vote.reasoning, model))
            .unwrap_or_default();
        Ok(Tally { choices, counts, reasoning, model })
    }

    fn count<'v>(&self, votes: impl Iterator<Item = &'v Vote>) -> Vec<Vec<usize>> {
        let mut counts: Vec<Vec<usize>> =
            self.ballot.fields.iter().map(|field| vec![0; field.words.len()]).collect();
        for vote in votes {
            vote.choices.iter().zip(&mut counts).for_each(|(choice, words)| words[*choice] += 1);
        }
        counts
    }

    async fn vote(&self, case: &Case<'_>, index: usize) -> Result<(Vote, String), RewardError> {
        let messages = self.prompt.render(&case.data);
        let messages =
            messages.map_err(|error| RewardError::failed(&self.config.name, "prompt", error))?;
        let request = self.config.sampling.request(messages, self.format.clone(), index);
        let outcome = self.answer(case, &request).await;
        if let Some(transcript) = &self.transcript {
            transcript
                .write(&Entry::new(case.id, index, &self.provenance, &request, &outcome))
                .await;
        }
        let (answer, vote) = outcome?;
        vote.map(|vote| (vote, answer.model.clone()))
            .map_err(|problem| self.no_verdict(case.id, problem, &answer.text))
    }

    async fn answer(
        &self,
        case: &Case<'_>,
        request: &ChatRequest,
    ) -> Result<(ChatResponse, Result<Vote, NoVerdict>), RewardError> {
        let answer = self.model.complete(request).await;
        let answer = answer.map_err(|source| RewardError::Chat {
            reward: self.config.name.clone(),
            source: Arc::new(source),
        })?;
        let vote = self.ballot.read(&answer, &case.shown);
        Ok((answer, vote))
    }

    pub(crate) fn no_verdict(&self, id: &str, problem: NoVerdict, answer: &str) -> RewardError {
        let answer = answer.trim().chars().take(200).collect();
        RewardError::NoVerdict {
            id: id.to_owned(),
            reward: self.config.name.clone(),
            problem,
            answer,
        }
    }

    /// The note of a score: who said it, under which prompt, and why.
    pub(crate) fn note(&self, verdict: &str, tally: &Tally) -> String {
        let reasoning: String = tally.reasoning.split_whitespace().collect::<Vec<_>>().join(" ");
        let reasoning: String = reasoning.chars().take(300).collect();
        let served =
            Some(&tally.model).filter(|model| !model.is_empty() && **model != self.model.name());
        let served = served.map(|model| format!(" (served as {model})")).unwrap_or_default();
        format!("{verdict} by {}{served}: {reasoning}", self.provenance.brief())
    }
}
