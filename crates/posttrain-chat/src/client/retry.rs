//! When to try again, and after how long.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde::{Deserialize, Serialize};

use crate::ChatError;
use crate::client::config::{pause_seconds, seconds};

/// The longest that a `Retry-After` is taken for: a day, which no deadline reaches.
const LONGEST: Duration = Duration::from_secs(86_400);

/// How often, and after which pauses, a failed request is sent again.
///
/// The pause before retry `n` (from 0) is `min(first_seconds · 2ⁿ, longest_seconds)` times a random
/// number from 0.5 to 1, so that what failed together does not come back together. A `Retry-After`
/// takes its place. The pauses are those of
/// [openai-python](https://github.com/openai/openai-python/blob/main/src/openai/_constants.py); it
/// retries twice, which is too little where a training step waits.
///
/// ```
/// use posttrain_chat::client::RetryConfig;
///
/// let config = RetryConfig::default();
/// assert_eq!((config.retries, config.first_seconds, config.longest_seconds), (5, 0.5, 8.0));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// Retries after the first attempt; 0 for none.
    pub retries: u32,
    /// Seconds before the first retry, from 0 to a day.
    pub first_seconds: f64,
    /// Seconds of the longest pause, from 0 to a day.
    pub longest_seconds: f64,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { retries: 5, first_seconds: 0.5, longest_seconds: 8.0 }
    }
}

impl RetryConfig {
    pub(crate) fn validate(&self) -> Result<(), ChatError> {
        pause_seconds("retry.first_seconds", self.first_seconds)?;
        pause_seconds("retry.longest_seconds", self.longest_seconds).map(|_| ())
    }

    /// The pause before the retry that follows `failed` failed attempts; none where `error` is to
    /// be reported.
    pub(crate) fn pause(&self, error: &ChatError, failed: u32) -> Option<Duration> {
        if !error.is_transient() || failed > self.retries {
            return None;
        }
        match error {
            // The replica rests for as long; the request may go to another one at once.
            ChatError::Status { retry_after: Some(_), .. } => Some(Duration::ZERO),
            _ => Some(self.jittered(failed.saturating_sub(1), fastrand::f64())),
        }
    }

    fn jittered(&self, retry: u32, random: f64) -> Duration {
        let pause =
            (self.first_seconds * 2f64.powi(retry.min(60) as i32)).min(self.longest_seconds);
        seconds(pause * (0.5 + 0.5 * random))
    }
}

/// What a `Retry-After` asks for: seconds, or a date.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<f64>() {
        Ok(number) => seconds(number),
        // A date that is past means now.
        Err(_) => httpdate::parse_http_date(text)
            .ok()?
            .duration_since(SystemTime::now())
            .unwrap_or_default(),
    };
    Some(wait.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(value: &str) -> Option<Duration> {
        retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]))
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(header("3"), Some(Duration::from_secs(3)));
        assert_eq!(header("0.25"), Some(Duration::from_millis(250)));
        assert_eq!(header("99999999999999999999"), Some(LONGEST));
        for strange in ["-5", "NaN"] {
            assert_eq!(header(strange), Some(Duration::ZERO), "{strange}");
        }
        assert_eq!(header("soon"), None);
        assert_eq!(header("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(10));
        assert!(header(&date).is_some_and(|wait| (8..=10).contains(&wait.as_secs())));
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let config = RetryConfig::default();
        let pauses: Vec<u128> =
            (0..6).map(|retry| config.jittered(retry, 1.0).as_millis()).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 8000]);
        assert_eq!(config.jittered(2, 0.0).as_millis(), 1000);
        assert_eq!(config.jittered(u32::MAX, 1.0).as_millis(), 8000);
    }

    #[test]
    fn only_what_may_pass_is_retried_and_only_so_often() {
        let status = |status, retry_after| ChatError::Status {
            endpoint: String::new(),
            status,
            body: String::new(),
            retry_after,
        };
        let config = RetryConfig { retries: 2, ..RetryConfig::default() };
        for code in [408, 409, 429, 500, 503, 599] {
            assert!(config.pause(&status(code, None), 2).is_some(), "{code}");
            assert!(config.pause(&status(code, None), 3).is_none(), "{code}");
        }
        for code in [400, 401, 403, 404, 410, 413, 422] {
            assert!(config.pause(&status(code, None), 1).is_none(), "{code}");
        }
        assert_eq!(config.pause(&status(429, Some(LONGEST)), 1), Some(Duration::ZERO));
    }
}
