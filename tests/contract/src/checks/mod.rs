//! The checks, by their subject. Each returns a sentence for each problem.

use anyhow::Result;

use crate::Repository;

pub mod baseline;
pub mod commands;
pub mod documents;
pub mod events;
pub mod functions;
pub mod inputs;
pub mod limits;
pub mod machines;
pub mod payloads;
pub mod permissions;
pub mod pipeline;
pub mod policies;
pub mod promises;
pub mod references;
pub mod schemas;
pub mod variables;

/// A check of the repository.
pub type Check = fn(&Repository) -> Result<Vec<String>>;

/// A sentence for each name that is in only one of two sets.
pub(crate) fn differences<'a>(
    what: &str,
    (one, ones): (&str, impl IntoIterator<Item = &'a str>),
    (other, others): (&str, impl IntoIterator<Item = &'a str>),
) -> Vec<String> {
    let ones: std::collections::BTreeSet<_> = ones.into_iter().collect();
    let others: std::collections::BTreeSet<_> = others.into_iter().collect();
    let only_one = ones
        .difference(&others)
        .map(|name| format!("{what} {name} is in {one} but not in {other}"));
    let only_other = others
        .difference(&ones)
        .map(|name| format!("{what} {name} is in {other} but not in {one}"));
    only_one.chain(only_other).collect()
}
