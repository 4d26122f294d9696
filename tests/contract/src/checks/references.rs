//! The targets of the documents' references exist.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use anyhow::{Context, Result};
use regex::Regex;

use crate::{Repository, markdown};

/// Every link to a file, a folder or a heading of this repository has an existing target.
///
/// # Errors
/// None.
pub fn links(repository: &Repository) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for (document, text) in repository.documents() {
        for link in markdown::references(text).links {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => Some(document.to_owned()),
                file => resolved(document, file),
            };
            let Some(target) = target.filter(|target| repository.has(target)) else {
                problems.push(format!("{document} links to {link}, which does not exist"));
                continue;
            };
            if anchor.is_empty() {
                continue;
            }
            let anchors = repository
                .file(&target)
                .map(|text| markdown::references(text).anchors)
                .unwrap_or_default();
            if !anchors.iter().any(|there| there == anchor) {
                problems.push(format!(
                    "{document} links to {link}, and {target} has no such heading"
                ));
            }
        }
    }
    Ok(problems)
}

/// The path from the root of a link's `file`; none when it leads outside the repository.
fn resolved(document: &str, file: &str) -> Option<String> {
    let mut path: Vec<_> = document.split('/').collect();
    path.pop();
    for part in file.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => drop(path.pop()?),
            part => path.push(part),
        }
    }
    Some(path.join("/"))
}

/// Every `make` command in a document is one that `make help` lists.
///
/// # Errors
/// When there is no Makefile.
pub fn verbs(repository: &Repository) -> Result<Vec<String>> {
    static LISTED: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?m)^([a-z][a-z-]*):.*## ").expect("a regex"));
    static SAID: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?m)^\s*(?:\$ )?make ([a-z][a-z-]*)").expect("a regex"));
    let makefile = repository.file("Makefile").context("no Makefile")?;
    let listed: BTreeSet<&str> = LISTED
        .captures_iter(makefile)
        .map(|verb| verb.extract::<1>().1[0])
        .collect();
    let mut problems = Vec::new();
    for (document, text) in repository.documents() {
        for code in markdown::references(text).code {
            problems.extend(
                SAID.captures_iter(&code)
                    .map(|verb| verb.extract::<1>().1[0])
                    .filter(|verb| !listed.contains(verb))
                    .map(|verb| {
                        format!("{document} says `make {verb}`, which make help does not list")
                    }),
            );
        }
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_relative_to_its_document() {
        let from = |file| resolved("docs/adr/0001.md", file);
        assert_eq!(from("../aws.md").as_deref(), Some("docs/aws.md"));
        assert_eq!(from("../../tests/").as_deref(), Some("tests"));
        assert_eq!(from("0002.md").as_deref(), Some("docs/adr/0002.md"));
        assert_eq!(from("../../../outside"), None);
    }
}
