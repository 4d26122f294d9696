//! Holds the parts of this repository that are written separately to each other: the functions, the
//! templates, the state machines, the error names and the documents.
//!
//! Every check derives the names from the directory `functions/`, reads plain files and needs no
//! AWS. It answers with sentences about what is wrong, all of them, so that one run shows the whole
//! work. [`Repository`] is a copy in memory: `tests/contract` also changes it on purpose and demands
//! that the check notices.

pub mod calls;
pub mod checks;
pub mod expression;
pub mod machine;
pub mod markdown;
pub mod repository;
pub mod template;

pub use machine::Machine;
pub use repository::{Repository, Step};
pub use template::Template;
