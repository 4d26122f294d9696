//! Texts that a state machine can hold.

/// The most bytes of a text that a function hands to a state machine.
///
/// A cause of an error may have 32,768 characters, and one that was cut would be no JSON any more,
/// so that the machine could not read it. Written as JSON a byte may take six, and this leaves room
/// for those as well as for the words around it.
/// <https://docs.aws.amazon.com/step-functions/latest/apireference/API_TaskFailedEventDetails.html>
pub const MOST_OF_A_TEXT: usize = 4_000;

/// The text, or as much of its beginning as a state machine can hold.
pub fn brief(text: String) -> String {
    if text.len() <= MOST_OF_A_TEXT {
        return text;
    }
    let beginning = &text[..text.floor_char_boundary(MOST_OF_A_TEXT)];
    format!("{beginning}… ({} bytes in all)", text.len())
}

/// The first of these words, and how many more there are.
pub fn first_of<'a>(words: impl IntoIterator<Item = &'a str>, most: usize) -> String {
    let words: Vec<&str> = words.into_iter().collect();
    let shown = &words[..words.len().min(most)];
    match words.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_fits_stays_as_it_is() {
        let text = "x".repeat(MOST_OF_A_TEXT);
        assert_eq!(brief(text.clone()), text);
    }

    #[test]
    fn a_longer_one_is_cut_between_two_characters_and_says_so() {
        let short = brief(format!("x{}", "ä".repeat(MOST_OF_A_TEXT)));
        assert!(short.len() < MOST_OF_A_TEXT + 40, "{}", short.len());
        assert!(short.ends_with("ä… (8001 bytes in all)"), "{short}");
    }

    #[test]
    fn the_worst_text_fits_a_cause_with_its_json_around_it() {
        let text = brief("\u{1}".repeat(300_000));
        let payload = serde_json::json!({"errorType": "UnexpectedError", "errorMessage": text});
        assert!(payload.to_string().len() < 32_768);
    }

    #[test]
    fn of_many_words_the_first_are_told() {
        assert_eq!(first_of(["a", "b"], 3), "a, b");
        assert_eq!(first_of(["a", "b", "c", "d", "e"], 3), "a, b, c and 2 more");
    }
}
