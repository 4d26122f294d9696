//! What is shown to people: in the console, in logs, in events.

use lifecycle::printable::printable;
use lifecycle::{ErrorName, StepError};

/// The most characters of anything that is shown. States of 50 deployments have to fit into the
/// 256 KiB that a state machine hands on.
const MOST: usize = 2100;

/// The text is short, and no character of it moves the cursor, hides or turns the direction.
///
/// # Panics
/// When it is not so.
pub fn can_be_shown(text: &str) {
    let length = text.chars().count();
    assert!(length <= MOST, "{length} characters: {text}");
    let hostile = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    assert!(!text.contains(hostile), "{text:?}");
}

/// The step refuses the input by that name and in words that can be shown.
///
/// # Panics
/// When it is not so.
pub fn refuses_the_input(error: &StepError) {
    assert_eq!(error.name, ErrorName::InvalidInput, "{error}");
    assert!(error.message.starts_with("invalid input: "), "{error}");
    can_be_shown(&error.message);
}

/// Any text can be made one that can be shown, and is not changed by that a second time.
///
/// # Panics
/// When it is not so.
pub fn check(text: &str) {
    for most in [0, 1, 64, 400] {
        let shown = printable(text, most);
        can_be_shown(&shown);
        let length = shown.chars().count();
        assert!(length <= most + 1, "{length} for {most}");
        if length <= most {
            assert_eq!(printable(&shown, most), shown);
        }
    }
    can_be_shown(&StepError::new(ErrorName::Unexpected, text).message);
}
