//! The repository's files, read once into memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use heck::ToUpperCamelCase;

use crate::{Machine, Template};

/// The folders of `functions/` that are not steps: the library of all steps, what a deployment runs with, and what few
/// steps need.
pub(crate) const LIBRARIES: [&str; 5] = [
    "autoscaling",
    "lifecycle",
    "monitoring",
    "settings",
    "task-requests",
];

/// The folders that are read, with their subfolders, and the kinds of files in each.
const READ: [(&str, &[&str]); 5] = [
    ("functions", &["rs", "toml", "md"]),
    ("infra", &["yaml", "json", "md"]),
    ("statemachine", &["json"]),
    ("docs", &["md", "json"]),
    ("tests", &["md", "rs"]),
];

/// The kinds of files that are read at the root.
const READ_AT_ROOT: [&str; 2] = ["md", "Makefile"];

/// The text files of the repository, by path from its root.
#[derive(Debug, Clone)]
pub struct Repository {
    files: BTreeMap<String, String>,
    /// The paths of all other files, for links to them.
    others: BTreeSet<String>,
}

/// A lifecycle step: one folder of `functions/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step {
    /// The folder's name, which is also the package's, the binary's and part of the function's.
    pub name: String,
}

impl Step {
    /// The name in states and resources: `create-service` is `CreateService`.
    pub fn pascal(&self) -> String {
        self.name.to_upper_camel_case()
    }

    /// A path inside the step's folder.
    pub fn path(&self, rest: &str) -> String {
        format!("functions/{}/{rest}", self.name)
    }
}

impl Repository {
    /// Reads the repository that contains this crate.
    ///
    /// # Errors
    /// When a file cannot be read or is not UTF-8.
    pub fn read() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut repository = Repository {
            files: BTreeMap::new(),
            others: BTreeSet::new(),
        };
        for (folder, extensions) in READ {
            repository.read_folder(&root, Path::new(folder), extensions)?;
        }
        for entry in std::fs::read_dir(&root)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                repository.read_file(&root, Path::new(&entry.file_name()), &READ_AT_ROOT)?;
            }
        }
        Ok(repository)
    }

    fn read_folder(&mut self, root: &Path, folder: &Path, kinds: &[&str]) -> Result<()> {
        let entries = std::fs::read_dir(root.join(folder))
            .with_context(|| format!("read the folder {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                self.read_folder(root, &path, kinds)?;
            } else {
                self.read_file(root, &path, kinds)?;
            }
        }
        Ok(())
    }

    /// Reads the file if its extension, or its name when it has none, is one of `kinds`.
    fn read_file(&mut self, root: &Path, path: &Path, kinds: &[&str]) -> Result<()> {
        let name = path.to_string_lossy().replace('\\', "/");
        let kind = path.extension().or(path.file_name());
        if kind.is_some_and(|kind| kinds.iter().any(|wanted| kind == *wanted)) {
            let text = std::fs::read_to_string(root.join(path))
                .with_context(|| format!("read {}", path.display()))?;
            self.files.insert(name, text);
        } else {
            self.others.insert(name);
        }
        Ok(())
    }

    /// Whether a file or a folder has that path.
    pub fn has(&self, path: &str) -> bool {
        let folder = format!("{path}/");
        self.files
            .keys()
            .chain(&self.others)
            .any(|file| file == path || file.starts_with(&folder))
    }

    /// Paths and texts of all documents.
    pub fn documents(&self) -> impl Iterator<Item = (&str, &str)> {
        self.below("").filter(|(path, _)| path.ends_with(".md"))
    }

    /// The text of a file; none when it does not exist.
    pub fn file(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Paths and texts of all files below a folder.
    pub fn below<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> + 'a {
        self.files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
            .filter(move |(path, _)| path.starts_with(folder))
    }

    /// The same repository with a file added or replaced.
    pub fn with(mut self, path: &str, text: impl Into<String>) -> Self {
        self.files.insert(path.to_owned(), text.into());
        self
    }

    /// The same repository without the files whose path has that prefix.
    pub fn without(mut self, prefix: &str) -> Self {
        self.files.retain(|path, _| !path.starts_with(prefix));
        self.others.retain(|path| !path.starts_with(prefix));
        self
    }

    /// The steps, in the order of their names.
    pub fn steps(&self) -> Vec<Step> {
        let names: BTreeSet<_> = self
            .below("functions/")
            .filter_map(|(path, _)| path.split('/').nth(1))
            .filter(|name| !LIBRARIES.contains(name))
            .collect();
        names
            .into_iter()
            .map(|name| Step {
                name: name.to_owned(),
            })
            .collect()
    }

    /// The template of that name in `infra/`.
    ///
    /// # Errors
    /// When it does not exist or is not YAML.
    pub fn template(&self, name: &str) -> Result<Template> {
        let path = format!("infra/{name}.yaml");
        let text = self.file(&path).with_context(|| format!("no {path}"))?;
        Template::parse(text).with_context(|| path)
    }

    /// The state machines, in the order of their names.
    ///
    /// # Errors
    /// When one is not JSON or has no states.
    pub fn machines(&self) -> Result<Vec<Machine>> {
        self.below("statemachine/")
            .filter_map(|(path, text)| {
                let name = path
                    .strip_prefix("statemachine/")?
                    .strip_suffix(".asl.json")?;
                Some(Machine::parse(name, text).with_context(|| path.to_owned()))
            })
            .collect()
    }
}
