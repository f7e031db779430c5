//! Who gets a row, and whose prompt is read: once a step.

use super::Engine;
use crate::prefill::{Prefix, Prompt, prefill};
use crate::row::{Group, Row, same_adapter};
use crate::row_shares::{RowShares, gives_way};
use crate::shared_prefix::alike;
use crate::waiting::{Ready, Stage, Waiting};
use crate::{Outcome, RolloutError, SampledToken};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// Tokens of a kept beginning that cost a pass about as much as one that is computed: they are
/// brought to the attention of every layer.
const READ_TOKENS: usize = 8;

impl Engine {
    /// Lets samples whose turn it is have the free rows, and computes the prompts of others in one
    /// pass.
    pub(super) fn admit(
        &mut self,
        done: &mut Vec<Outcome>,
        watch: &mut dyn FnMut(SampledToken),
    ) -> Result<(), RolloutError> {
        self.waiting.order(self.batch.rows_by_client());
        self.join_ready(done, watch)?;
        if self.prefill_next()? {
            self.join_ready(done, watch)?;
        }
        Ok(())
    }

    /// Computes the prompts whose turn it is, as far as they fit a pass: those for which there are
    /// rows, and those behind them that begin alike, whose beginning would be computed again when
    /// their turn comes. Says whether there was any.
    fn prefill_next(&mut self) -> Result<bool, RolloutError> {
        let places = self.to_prefill()?;
        if places.is_empty() {
            return Ok(false);
        }
        let (places, prompts): (Vec<usize>, Vec<Prompt>) = places.into_iter().unzip();
        let prefilled = prefill(&self.model, &prompts, self.may_record())?;
        self.stats.prompt_tokens += prefilled.tokens;
        self.recorded += prefilled.recorded;
        let recorded = self.may_record();

        self.waiting.has_read(prompts.iter().map(|prompt| prompt.group.client));
        for ((place, prompt), mut prefix) in places.into_iter().zip(prompts).zip(prefilled.prefixes)
        {
            let waiting = &mut self.waiting[place];
            if matches!(waiting.stage, Stage::Unread) {
                self.stats.kept_tokens += prompt.read.tokens();
            }
            if !prompt.is_whole() {
                waiting.stage = Stage::Partly(prefix.cache);
                continue;
            }
            let tokens = &waiting.group.prompt;
            if self.kept.takes(tokens.len()) {
                self.kept.keep(&waiting.group, tokens.clone(), prefix.cache.clone());
            }
            prefix.recorded = prefix.recorded.filter(|_| recorded);
            waiting.stage = Stage::Read(prefix);
        }
        Ok(true)
    }

    /// The prompts of the next pass, and the places where they wait.
    fn to_prefill(&self) -> Result<Vec<(usize, Prompt)>, RolloutError> {
        let mut room = self.config.prefill_tokens;
        let free = self.config.max_rows - self.batch.len();
        let next = self.waiting.first_ready(room).map(|ready| self.waiting[ready.place].turn());
        let mut rows = RowShares::new(&self.batch, free, next);
        // What is computed takes memory until it has a row.
        let mut begun = self.waiting.read_ahead();
        let mut passed_over: BTreeSet<u64> = BTreeSet::new();
        let mut prompts: Vec<(usize, Prompt)> = Vec::new();

        for place in self.waiting.to_read() {
            let waiting = &self.waiting[place];
            let group = &waiting.group;
            if passed_over.contains(&group.client) {
                continue;
            }
            let begins = matches!(waiting.stage, Stage::Unread);
            // Nothing that is computed can be before it, and wait for it.
            let is_next = next.is_some_and(|next| waiting.turn() < next);
            let may_begin = !begins || is_next || begun < self.config.max_rows;
            // What is kept need not be computed ahead.
            let ahead = !self.kept.takes(group.prompt.len())
                && prompts.last().is_some_and(|(_, last)| related(&last.group, group));
            let reads = ahead || (may_begin && rows.has_one_for(waiting));
            if !reads {
                passed_over.insert(group.client);
                continue;
            }
            rows.promise(waiting);

            let mut prompt = match &waiting.stage {
                Stage::Partly(read) => Prompt::behind(group.clone(), read.clone()),
                _ => self.kept.prompt(&self.model, group)?,
            };
            let (rest, reading) = (prompt.rest().len(), prompt.read.tokens() / READ_TOKENS);
            if rest + reading <= room {
                room -= rest + reading;
                begun += usize::from(begins);
                prompts.push((place, prompt));
                continue;
            }

            // What is longer than a pass is read in pieces; what is not waits for the next one.
            let pass = self.config.prefill_tokens;
            let long = rest > pass && room >= pass / 2 && reading < room / 2;
            if prompts.is_empty() || long {
                let piece = room.saturating_sub(reading).max(room / 2).max(1);
                prompt.end = prompt.end.min(prompt.read.tokens() + piece);
                prompts.push((place, prompt));
            }
            break;
        }
        Ok(prompts)
    }

    /// Lets the samples that need but a row have one, as it is their turn.
    fn join_ready(
        &mut self,
        done: &mut Vec<Outcome>,
        watch: &mut dyn FnMut(SampledToken),
    ) -> Result<(), RolloutError> {
        while let Some(Ready { place, turns, reserved }) =
            self.waiting.first_ready(self.config.prefill_tokens)
        {
            let most = self.config.max_rows.saturating_sub(reserved);
            let Waiting { group, rank, .. } = &self.waiting[place];
            let (group, rank) = (group.clone(), *rank);
            let Some(mut waiting) = self.waiting.remove(place) else { return Ok(()) };
            if self.batch.len() >= most && (reserved > 0 || !self.give_way(&group, rank)?) {
                self.waiting.insert(waiting);
                return Ok(());
            }
            let prefix = match waiting.stage {
                Stage::Read(prefix) => prefix,
                Stage::Paused(row, text) => {
                    self.batch.join(&self.model, self.config.max_rows, &text, vec![*row])?;
                    continue;
                }
                Stage::Unread | Stage::Partly(_) => unreachable!("it is ready"),
            };

            let count = waiting.samples.len().min(most - self.batch.len()).min(turns);
            let samples = waiting.samples.start..waiting.samples.start + count;
            waiting.samples.start += count;
            waiting.rank += count;
            done.extend(self.join(&group, samples, &prefix, watch)?);
            if !waiting.samples.is_empty() {
                self.waiting.insert(Waiting { stage: Stage::Read(prefix), ..waiting });
            }
        }
        Ok(())
    }

    /// Frees a row for a group whose client has `rank`, if another has so many that it gives one.
    /// The sample whose row it was goes on later from where it is.
    fn give_way(&mut self, group: &Group, rank: usize) -> Result<bool, RolloutError> {
        let Some((row, rows)) = self.batch.of_the_most(group) else { return Ok(false) };
        if !gives_way(rows, rank) {
            return Ok(false);
        }
        let Some(text) = self.batch.text(row)? else { return Ok(false) };
        if let Some(row) = self.batch.leave(row)? {
            self.waiting.insert(Waiting::paused(row, text, rows - 1));
        }
        Ok(true)
    }

    /// Draws the first tokens of some samples of a group; those that are not finished by them get a
    /// row.
    fn join(
        &mut self,
        group: &Arc<Group>,
        samples: Range<usize>,
        prefix: &Prefix,
        watch: &mut dyn FnMut(SampledToken),
    ) -> Result<Vec<Outcome>, RolloutError> {
        let context = self.context();
        let row =
            |sample| Row::new(group.clone(), sample, context).recording(prefix.recorded.as_ref());
        let mut rows: Vec<Row> = samples.map(row).collect();
        let logits = prefix
            .logits
            .f_unsqueeze(0)?
            .f_expand([rows.len() as i64, -1], false)?
            .f_contiguous()?;
        let finished = self.draw(&logits, &mut rows, watch)?;

        let mut done = Vec::with_capacity(finished.len());
        for (index, result) in finished.into_iter().rev() {
            done.push(result);
            rows.remove(index);
        }
        self.batch.join(&self.model, self.config.max_rows, &prefix.cache, rows)?;
        Ok(done)
    }
}

/// Whether the beginning of two groups' prompts is computed once if they are computed together, and
/// their turns come together.
fn related(one: &Group, other: &Group) -> bool {
    one.client == other.client
        && one.priority == other.priority
        && same_adapter(one, other)
        && alike(&one.prompt, &other.prompt)
}
