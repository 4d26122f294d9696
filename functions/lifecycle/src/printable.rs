//! Makes text from outside safe to show in a message or a log line.

use std::iter::once;

/// The maximum number of characters of a message or a reason that a function returns to a state machine.
///
/// The cause of an error may have 32,768 characters. A cause that is cut off is not JSON, so the machine
/// could not parse it. An answer of more than 256 KiB ends the execution with
/// `States.DataLimitExceeded`, which `States.ALL` does not catch. This leaves room for the words around.
/// <https://docs.aws.amazon.com/step-functions/latest/apireference/API_TaskFailedEventDetails.html>
/// <https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html>
pub const MAX_TEXT: usize = 4_000;

/// The text without control characters, marks of direction and other invisible ones, which are
/// written as escapes (`\n`, `\u{202e}`), and with its middle left out when it is longer than `max`
/// characters: the beginning often says what it is, and the end what is expected instead.
pub fn printable(text: &str, max: usize) -> String {
    let fits = text.chars().flat_map(shown).take(max + 1).count() <= max;
    if fits {
        return text.chars().flat_map(shown).collect();
    }
    let front = within(text.chars(), max.div_ceil(2));
    let mut back = within(text.chars().rev(), max / 2);
    back.reverse();
    front
        .into_iter()
        .chain(once("…".to_owned()))
        .chain(back)
        .collect()
}

/// The first of these words, and how many more there are.
pub fn first_of<'a>(words: impl IntoIterator<Item = &'a str>, max: usize) -> String {
    let words: Vec<&str> = words.into_iter().collect();
    let shown = &words[..words.len().min(max)];
    match words.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// As many characters, each as it is shown, as fit.
fn within(characters: impl Iterator<Item = char>, room: usize) -> Vec<String> {
    characters
        .map(|character| shown(character).collect::<String>())
        .scan(room, |left, shown| {
            *left = left.checked_sub(shown.chars().count())?;
            Some(shown)
        })
        .collect()
}

fn shown(character: char) -> impl Iterator<Item = char> {
    // Quotes and backslashes are what a person typed; escaped, they would only be harder to read.
    let as_it_is = matches!(character, '"' | '\'' | '\\').then_some(character);
    let escaped = as_it_is.is_none().then(|| character.escape_debug());
    as_it_is.into_iter().chain(escaped.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_read_stays_as_it_is() {
        for text in ["", "test", "it's `\"quoted\"` \\ and über", "日本語 1"] {
            assert_eq!(printable(text, 64), text);
        }
    }

    #[test]
    fn what_moves_the_cursor_or_hides_is_escaped() {
        for (text, shown) in [
            ("a\nb\r\tc", r"a\nb\r\tc"),
            ("\0", r"\0"),
            ("\u{1b}[31mred", r"\u{1b}[31mred"),
            ("\u{202e}gnp", r"\u{202e}gnp"),
            ("\u{200f}\u{feff}\u{2028}", r"\u{200f}\u{feff}\u{2028}"),
            ("e\u{301}", r"e\u{301}"),
        ] {
            assert_eq!(printable(text, 64), shown);
        }
    }

    #[test]
    fn both_ends_of_a_long_text_are_shown() {
        assert_eq!(printable("abcdefghij", 10), "abcdefghij");
        assert_eq!(printable("abcdefghijk", 10), "abcde…ghijk");
        assert_eq!(printable("abcdefghijk", 0), "…");
        assert_eq!(printable(&"\n".repeat(1_000_000), 5), r"\n…\n");
        assert_eq!(printable(&"é".repeat(1_000_000), 5), "ééé…éé");
    }

    #[test]
    fn the_worst_text_fits_a_cause_with_its_json_around_it() {
        for worst in ["\u{1}", "\\", "\u{10ffff}"] {
            let text = printable(&worst.repeat(300_000), MAX_TEXT);
            let payload = serde_json::json!({"errorType": "UnexpectedError", "errorMessage": text});
            assert!(payload.to_string().len() < 32_768);
        }
    }

    #[test]
    fn of_many_words_the_first_are_told() {
        assert_eq!(first_of(["a", "b"], 3), "a, b");
        assert_eq!(first_of(["a", "b", "c", "d", "e"], 3), "a, b, c and 2 more");
    }
}
