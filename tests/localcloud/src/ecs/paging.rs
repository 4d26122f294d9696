//! Splits lists into pages, with opaque tokens.

use super::answer::Refusal;

/// One page of a list.
#[derive(Debug, PartialEq)]
pub struct Page {
    pub items: Vec<String>,
    /// The token of the next page. `None` on the last page.
    pub next_token: Option<String>,
}

/// The page of `all` after `token`, with at most `max_results` items (1 to 100, or else
/// `default_size`). The token contains the last item of the previous page, so that items that are added
/// or deleted between two pages do not shift the pages.
pub fn page(
    mut all: Vec<String>,
    max_results: Option<i64>,
    default_size: usize,
    token: Option<&str>,
) -> Result<Page, Refusal> {
    let size = match max_results {
        None => default_size,
        Some(size @ 1..=100) => usize::try_from(size).unwrap_or(default_size),
        Some(_) => {
            return Err(Refusal::invalid_parameter(
                "maxResults must be between 1 and 100.",
            ));
        }
    };
    all.sort();
    if let Some(token) = token {
        let last = decode(token).ok_or_else(|| Refusal::invalid_parameter("Invalid token."))?;
        all.retain(|item| *item > last);
    }
    let more = all.len() > size;
    all.truncate(size);
    let next_token = if more {
        all.last().map(|last| encode(last))
    } else {
        None
    };
    Ok(Page {
        items: all,
        next_token,
    })
}

fn encode(last: &str) -> String {
    last.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn decode(token: &str) -> Option<String> {
    let digits = token.as_bytes();
    if digits.is_empty() || digits.len() % 2 == 1 {
        return None;
    }
    let bytes = digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect::<Option<Vec<u8>>>()?;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("service-{n:03}")).collect()
    }

    #[test]
    fn eleven_items_make_a_page_of_ten_and_a_page_of_one() {
        let first = page(names(11), None, 10, None).unwrap();
        assert_eq!(first.items.len(), 10);
        let second = page(names(11), None, 10, first.next_token.as_deref()).unwrap();
        assert_eq!(second.items, ["service-010"]);
        assert_eq!(second.next_token, None);
    }

    #[test]
    fn a_full_last_page_has_no_token() {
        assert_eq!(page(names(10), None, 10, None).unwrap().next_token, None);
    }

    #[test]
    fn the_deletion_of_an_item_between_two_pages_skips_no_other() {
        let first = page(names(20), Some(5), 10, None).unwrap();
        let mut rest = names(20);
        rest.remove(0);
        let second = page(rest, Some(5), 10, first.next_token.as_deref()).unwrap();
        assert_eq!(second.items[0], "service-005");
    }

    #[test]
    fn more_than_100_results_and_an_invalid_token_are_refused() {
        assert!(page(names(3), Some(101), 10, None).is_err());
        assert!(page(names(3), Some(0), 10, None).is_err());
        assert!(page(names(3), None, 10, Some("invalid")).is_err());
    }
}
