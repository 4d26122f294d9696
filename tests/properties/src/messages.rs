//! Texts for operators, in the console, in logs and in events.

use lifecycle::printable::{MAX_TEXT, printable};
use lifecycle::{ErrorName, StepError};

/// The limit on the length of a text, in characters: with the sign that something was left out.
const MAX_CHARACTERS: usize = MAX_TEXT + 1;

/// The text is short, and contains no character that moves the cursor, is invisible, or changes the
/// direction.
pub fn assert_printable(text: &str) {
    let length = text.chars().count();
    assert!(length <= MAX_CHARACTERS, "{length} characters: {text}");
    let hostile = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    assert!(!text.contains(hostile), "{text:?}");
}

/// The step refuses the input with `InvalidInput` and a printable message.
pub fn assert_input_refused(error: &StepError) {
    assert_eq!(error.name, ErrorName::InvalidInput, "{error}");
    assert!(error.message.starts_with("invalid input: "), "{error}");
    assert_printable(&error.message);
}

/// Every text can be made printable, and a second conversion does not change it.
pub fn check(text: &str) {
    for limit in [0, 1, 64, 400, MAX_TEXT] {
        let shown = printable(text, limit);
        assert_printable(&shown);
        let length = shown.chars().count();
        assert!(length <= limit + 1, "{length} for {limit}");
        if length <= limit {
            assert_eq!(printable(&shown, limit), shown);
        }
    }
    assert_printable(&StepError::new(ErrorName::Unexpected, text).message);
}
