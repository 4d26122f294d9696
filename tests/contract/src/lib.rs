//! Checks that the separately written parts of this repository agree: the functions, the templates, the
//! state machines, the error names and the documents.
//!
//! Every check derives the names from the directory `functions/`, reads plain files and needs no AWS.
//! It returns a sentence for each problem, so that one run reports all of them. [`Repository`] is a copy
//! in memory: `tests/contract` also makes mistakes in it and expects the check to report them.

pub mod calls;
pub mod checks;
pub mod expression;
pub mod machine;
pub mod markdown;
pub mod offline_cli;
pub mod repository;
pub mod template;

pub use machine::Machine;
pub use repository::{Repository, Step};
pub use template::Template;
