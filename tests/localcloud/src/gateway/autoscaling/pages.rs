//! Splits lists into pages.

use serde_json::{Value, json};

use super::requests::validation;
use crate::gateway::answer::AwsError;

/// What a token begins with. The key of the last item of its page follows, so that items that are added or deleted
/// between two pages do not shift the pages.
const AFTER: &str = "after:";

/// The answer with one page of the items, which have keys and are sorted by them, under `name`.
pub fn page(
    name: &str,
    mut items: Vec<(String, Value)>,
    most: usize,
    max_results: Option<i64>,
    token: Option<&str>,
) -> Result<Value, AwsError> {
    let size = match max_results.map(usize::try_from) {
        None => most,
        Some(Ok(size)) if (1..=most).contains(&size) => size,
        Some(_) => {
            return Err(validation(format!(
                "MaxResults must be between 1 and {most}."
            )));
        }
    };
    if let Some(token) = token {
        let last = token.strip_prefix(AFTER).ok_or_else(|| {
            AwsError::new("InvalidNextTokenException", "The next token is not valid.")
        })?;
        items.retain(|(key, _)| key.as_str() > last);
    }
    let more = items.len() > size;
    items.truncate(size);
    let last = items.last().map(|(key, _)| format!("{AFTER}{key}"));
    let items: Vec<Value> = items.into_iter().map(|(_, item)| item).collect();
    let mut answer = json!({name: items});
    if let Some(last) = last.filter(|_| more) {
        answer["NextToken"] = json!(last);
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(keys: &[&str]) -> Vec<(String, Value)> {
        keys.iter()
            .map(|key| (key.to_string(), json!(key)))
            .collect()
    }

    #[test]
    fn a_token_continues_after_the_last_item_even_if_that_is_gone() {
        let first = page("All", items(&["a", "b", "c"]), 50, Some(2), None).expect("valid");
        assert_eq!(first["All"], json!(["a", "b"]));
        let token = first["NextToken"].as_str();
        for left in [&["a", "b", "c"][..], &["a", "c"]] {
            let second = page("All", items(left), 50, Some(2), token).expect("valid");
            assert_eq!(second, json!({"All": ["c"]}));
        }
    }

    #[test]
    fn sizes_and_tokens_that_are_not_valid_are_refused() {
        for size in [-1, 0, 11] {
            let error = page("All", Vec::new(), 10, Some(size), None).expect_err("refused");
            assert_eq!(error.code, "ValidationException", "{size}");
        }
        let error = page("All", Vec::new(), 10, None, Some("b")).expect_err("refused");
        assert_eq!(error.code, "InvalidNextTokenException");
    }
}
