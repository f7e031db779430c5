//! Where two configurations first differ.

use serde_json::Value;
use std::fmt;

/// The first field in which two configurations differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The field's path, such as `rl.steps`; empty where the two differ as wholes.
    pub field: String,
    /// Its value in the first, as JSON; `null` where it has none.
    pub was: String,
    /// Its value in the second.
    pub now: String,
}

impl Difference {
    /// The first difference of two configurations, in the order of the first one's fields; none
    /// where they are equal.
    ///
    /// ```
    /// use posttrain_store::Difference;
    /// use serde_json::json;
    ///
    /// let was = json!({"seed": 1, "rl": {"steps": 60, "groups": 8}});
    /// let now = json!({"seed": 1, "rl": {"steps": 80, "groups": 8}});
    /// let difference = Difference::between(&was, &now).unwrap();
    /// assert_eq!(difference.to_string(), "`rl.steps` was 60, is now 80");
    /// assert_eq!(Difference::between(&was, &was), None);
    /// ```
    #[must_use]
    pub fn between(was: &Value, now: &Value) -> Option<Self> {
        first_difference(String::new(), was, now)
    }
}

fn first_difference(field: String, was: &Value, now: &Value) -> Option<Difference> {
    let (Value::Object(old), Value::Object(new)) = (was, now) else {
        let differs = was != now;
        return differs.then(|| Difference { field, was: was.to_string(), now: now.to_string() });
    };
    let added = new.keys().filter(|key| !old.contains_key(*key));
    old.keys().chain(added).find_map(|key| {
        let inner = if field.is_empty() { key.clone() } else { format!("{field}.{key}") };
        first_difference(
            inner,
            old.get(key).unwrap_or(&Value::Null),
            new.get(key).unwrap_or(&Value::Null),
        )
    })
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` was {}, is now {}", self.field, self.was, self.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_field_that_came_or_went_is_a_difference_from_null() {
        let without = json!({"a": 1});
        let with = json!({"a": 1, "b": {"c": [2]}});
        let came = Difference::between(&without, &with).unwrap();
        assert_eq!((came.field.as_str(), came.was.as_str()), ("b", "null"));
        let went = Difference::between(&with, &without).unwrap();
        assert_eq!((went.field.as_str(), went.now.as_str()), ("b", "null"));
    }

    #[test]
    fn lists_differ_as_wholes() {
        let difference = Difference::between(&json!({"d": [1, 2]}), &json!({"d": [1, 3]})).unwrap();
        assert_eq!(difference.to_string(), "`d` was [1,2], is now [1,3]");
    }
}
